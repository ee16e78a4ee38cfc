"""QbE by both engines: s3prl's expert searches every layer on dev and the best one on test, nothing is trained.

s3prl runs the upstream once per layer and set. The fast engine runs it once in all: frames of every layer are stored,
and the expert's own DTW (`log_records`) reads them layer by layer. A layer that was searched is not searched again.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json, write_json
from speechft.superb import mtwv
from speechft.superb.fast import Outcome
from speechft.superb.scopes import swapped
from speechft.superb.tasks.checks import whole_numbers

if TYPE_CHECKING:
    from speechft.console import Progress
    from speechft.superb.settings import Settings
    from speechft.superb.tasks.qbe import QbE
    from speechft.upstreams.base import Upstream

Search = Callable[[str, int, Path], None]
"""Set, layer, folder: leave `benchmark.stdlist.xml`, s3prl's detections, in the folder."""

_DETECTIONS = "benchmark.stdlist.xml"


def fast(
    upstream: Upstream, task: QbE, settings: Settings, work: Path, fingerprint: str, progress: Progress,
    beside: Sequence[Upstream] = (),
) -> tuple[Outcome, str]:  # fmt: skip
    """`--engine fast`; arguments and results as of the other tasks' engines (evaluate.py)."""
    import torch

    from speechft.superb.assemble import build_modules, features_of_splits, plan_splits
    from speechft.superb.store import FeatureStore

    del fingerprint  # the folder was cleared if it belonged to another evaluation
    recipe, device = settings.superb[task.name], torch.device(settings.device)
    config = task.config(recipe, settings.data, work)
    _, expert = build_modules(task, config, upstream, work / "s3prl", settings.seed, device)
    plans = plan_splits(task, expert, upstream, recipe, settings.data, settings.frames_dtype, settings.numerics)
    features = features_of_splits(
        task, expert, plans, recipe, settings.data, upstream, FeatureStore(settings.store), device,
        settings.frames_dtype, settings.batch_seconds, settings.budget_gb, progress.bar, progress.say,
        settings.numerics, [torch.device(one) for one in settings.devices], beside,
    )  # fmt: skip

    def search(split: str, layer: int, folder: Path) -> None:
        expert.get_dataloader(split)  # the expert counts queries and documents of the set it made last
        expert.expdir = folder
        records: dict[str, list[Any]] = defaultdict(list)
        for number, item in enumerate(plans[split][0].items):
            frames = torch.from_numpy(features[split].gather([number])[0][:, layer]).float()
            expert(split, [frames], [item.path.with_suffix("").name], records=records)
        with _without_pickling(recipe["workers"], progress.bar(f"{task.name} {split} layer {layer}")):
            expert.log_records(split, records=records)

    outcome = _search_layers(task, settings, upstream.num_layers, work, search)
    return outcome, sha256_json([key.data for _, key, _ in plans.values()])


def reference(
    upstream: Upstream, task: QbE, settings: Settings, work: Path, fingerprint: str, progress: Progress,
    beside: Sequence[Upstream] = (),
) -> tuple[Outcome, str]:  # fmt: skip
    """`--engine s3prl`: its `Runner`, once per layer and set."""
    import copy

    from s3prl.downstream.runner import Runner

    from speechft.superb.assemble import plan_splits
    from speechft.superb.bridge import registered
    from speechft.superb.records import seed_all
    from speechft.superb.reference import namespace

    del fingerprint, beside
    recipe = settings.superb[task.name]
    config = task.config(recipe, settings.data, work)

    def runner(split: str, layer: int, folder: Path, hub_name: str) -> Any:
        seed_all(settings.seed)
        args = namespace(task, hub_name, folder, settings.seed, settings.device, None)
        args.mode, args.upstream_layer_selection, args.evaluate_split = "evaluate", layer, split
        return Runner(args, copy.deepcopy(config))

    with registered(upstream) as hub_name:

        def search(split: str, layer: int, folder: Path) -> None:
            progress.say(f"{task.name} (s3prl): {split}, layer {layer}")
            runner(split, layer, folder, hub_name).evaluate()

        outcome = _search_layers(task, settings, upstream.num_layers, work, search)
        expert = runner("dev", 0, work, hub_name).downstream.model
    plans = plan_splits(task, expert, upstream, recipe, settings.data, settings.frames_dtype)
    return outcome, sha256_json([key.data for _, key, _ in plans.values()])


def _search_layers(task: QbE, settings: Settings, count: int, work: Path, search: Search) -> Outcome:
    """Dev for each layer, then test for the best (of equal ones the lowest).

    Returns:
        `metrics`: `mtwv`, as SUPERB reports it; `mtwv_searched`, of the searched queries and documents alone;
        `beta`, the weight of false alarms; `threshold`; `layer`. `dev`: the same, and `mtwv-layerN` of each layer.
        `weights`: 1 for the layer.
    """
    given = settings.superb[task.name]["layers"]
    layers = list(range(count)) if given is None else whole_numbers("superb.qbe.layers", given, 0, several=True)
    if max(layers) >= count:
        raise UsageError(f"superb.qbe.layers={layers}, but the upstream has {count} hidden states", "count from 0")

    def run(split: str, layer: int) -> dict[str, Any]:
        folder = work / f"layer{layer}-{split}"
        note = folder / "mtwv.json"
        if not note.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            search(split, layer, folder)
            write_json(note, _score(task, settings, split, folder / _DETECTIONS))
        result = read_json(note)
        assert isinstance(result, dict)
        return result

    dev = {layer: run("dev", layer)["metrics"] for layer in layers}
    best = max(layers, key=lambda layer: dev[layer]["mtwv"])
    test = run("test", best)
    each = {f"mtwv-layer{layer}": dev[layer]["mtwv"] for layer in layers}
    weights = [float(layer == best) for layer in range(count)]
    return Outcome(
        {**test["metrics"], "layer": best},
        {**dev[best], "layer": best, **each},
        {"queries": test["queries"]},
        weights,
        0,
    )


def _score(task: QbE, settings: Settings, split: str, path: Path) -> dict[str, Any]:
    truth, costs = task.truth(settings.data, split)
    scores = mtwv.read_detections(path)
    documents = sorted({document for found in scores.values() for document in found})
    strangers = [name for name in scores if not set(scores[name]) <= truth.documents]
    if strangers:
        raise SpeechFTError(
            f"{len(strangers)} queries of {split} were searched in documents that the ground truth does not know",
            "unpack the corpus of data.quesst14 again",
        )
    official = mtwv.maximum(scores, truth, costs)
    searched = [query for query in sorted(scores) if query in truth.targets]
    share = len(searched) / len(truth.targets)
    own = truth.within(searched, documents)
    alone = mtwv.maximum(scores, own, costs).mtwv if own.targets else 0.0
    # the mean of `value` over the searched queries is the score, in which the others count 0
    lines = [
        {"file": query, "value": official.queries[query] * share, "twv": official.queries[query]} for query in searched
    ]
    if official.threshold <= mtwv.DEFAULT_SCORE:  # the best is to accept everything: then all queries count
        lines = [{"file": query, "value": value, "twv": value} for query, value in sorted(official.queries.items())]
    metrics = {"mtwv": official.mtwv, "mtwv_searched": alone, "beta": costs.beta}
    if math.isfinite(official.threshold):  # else accepting nothing was best
        metrics["threshold"] = official.threshold
    return {"metrics": metrics, "queries": lines}


@contextlib.contextmanager
def _without_pickling(workers: int | None, progress: Callable[[int, int], None]) -> Iterator[None]:
    """Inside, the expert's process pool runs the same calls in forked processes that share the features.

    s3prl sends each pair's frames through a pipe, hundreds of gigabytes in all. Where processes cannot be forked its
    own pool stays.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        yield
        return
    from s3prl.downstream.quesst14_dtw import expert as module

    count = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

    def finish(calls: Sequence[_Call]) -> Iterator[_Call]:
        for done, (call, value) in enumerate(zip(calls, _values(calls, count), strict=True), start=1):
            call.value = value
            progress(done, len(calls))
            yield call

    with swapped(module, "ProcessPoolExecutor", _Calls), swapped(module, "as_completed", finish):
        yield


class _Call:
    """A call that is still to be made, then its value; s3prl sees a `Future`."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.value: Any = None

    def result(self) -> Any:
        return self.value


class _Calls:
    """Stands for `ProcessPoolExecutor`: keeps the calls."""

    def __init__(self, max_workers: int | None = None) -> None:
        del max_workers

    def __enter__(self) -> _Calls:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> _Call:
        return _Call(function, arguments)


_shared: Sequence[_Call] = ()  # forked processes find the calls here


def _run(number: int) -> Any:
    call = _shared[number]
    return call.function(*call.arguments)


def _values(calls: Sequence[_Call], count: int) -> Iterator[Any]:
    global _shared
    _shared = calls
    try:
        if count == 1 or len(calls) < 2 * count:
            yield from map(_run, range(len(calls)))
            return
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork")) as pool:
            yield from pool.map(_run, range(len(calls)), chunksize=min(256, len(calls) // count))
    finally:
        _shared = ()
