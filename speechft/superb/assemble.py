"""Building what `--engine fast` trains, in the order in which s3prl's `Runner` builds it.

The order matters: with equal seeds both engines draw the same initial head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from speechft.files import sha256_json
from speechft.superb import state as saved
from speechft.superb.batches import FeatureSplit
from speechft.superb.bridge import HUB_NAME, Bridge
from speechft.superb.draws import Crops
from speechft.superb.extract import Streamed, computer, data_identity, extract, plan
from speechft.superb.fast import FastRun
from speechft.superb.items import Split
from speechft.superb.records import seed_all
from speechft.superb.reference import namespace
from speechft.superb.store import Features, FeatureStore, Key, Layout, check_budget, room
from speechft.superb.tasks.base import Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.numerics import FLOAT32, Numerics

Bar = Callable[[str], Callable[[int, int], None]]
"""Label -> a function called with how much is done and how much there is."""


def no_bar(label: str) -> Callable[[int, int], None]:
    """A `Bar` that shows nothing."""
    del label
    return lambda done, total: None


def build_modules(
    task: Task, config: Mapping[str, Any], upstream: Upstream, expdir: Path, seed: int, device: torch.device
) -> tuple[Any, Any]:
    """s3prl's `Featurizer` and the task's `DownstreamExpert` as `Runner.__init__` makes them after seeding."""
    from s3prl.upstream.interfaces import Featurizer

    expdir.mkdir(parents=True, exist_ok=True)
    seed_all(seed)
    args = namespace(task, HUB_NAME, expdir, seed, str(device), None)
    featurizer = Featurizer(
        upstream=Bridge(upstream.to(device).eval()), feature_selection="hidden_states", upstream_device=str(device)
    ).to(device)
    module = import_module(f"s3prl.downstream.{task.folder}.expert")
    expert = module.DownstreamExpert(
        upstream_dim=featurizer.output_dim,
        upstream_rate=featurizer.downsample_rate,
        **copy.deepcopy(dict(config)),
        **vars(args),
    ).to(device)
    task.settle(expert)
    return featurizer, expert


def plan_splits(
    task: Task, expert: Any, upstream: Upstream, settings: Mapping[str, Any], data: Mapping[str, Any], dtype: str,
    numerics: Numerics = FLOAT32,
) -> dict[str, tuple[Split, Key, Layout]]:  # fmt: skip
    """Items, store key and size of each split."""
    plans = {}
    for name in task.splits:
        split = task.split(expert, name, Crops.read(settings))
        identity = data_identity(task, split, settings, data)
        plans[name] = (split, *plan(task, split, upstream, identity, dtype, numerics))
    return plans


def what_fits(
    task: Task, plans: Mapping[str, tuple[Split, Key, Layout]], store: FeatureStore, budget_gb: float,
    say: Callable[[str], None], devices: int = 1,
) -> set[str]:  # fmt: skip
    """The sets to be stored: the smallest first, as long as budget and disk allow.

    Args:
        devices: how many there are; what is not stored is computed by the one that trains the heads.

    Raises:
        SpeechFTError: pooled features do not fit (they are small: computing them again at every step is no way out).
    """
    totals = {name: layout.total_bytes(key) for name, (_, key, layout) in plans.items()}
    missing = {name: store.missing_bytes(key, layout) for name, (_, key, layout) in plans.items()}
    if task.kind == "pooled" or task.engine("fast") is not None:
        check_budget(store.root, sum(totals.values()), sum(missing.values()), budget_gb, task.name)
        return set(plans)
    budget, free = room(store.root, budget_gb)
    kept: set[str] = set()
    for name in sorted(plans, key=lambda name: totals[name]):
        if totals[name] <= budget and missing[name] <= free:
            kept.add(name)
            budget, free = budget - totals[name], free - missing[name]
    computed = [name for name in plans if name not in kept]
    if computed:
        size = sum(totals[name] for name in computed) / 1e9
        say(
            f"{task.name}: the features of {', '.join(computed)} would take {size:.2f} GB more than "
            f"budget_gb={budget_gb:g} or the disk allows; the upstream runs at every batch instead, once for all "
            f"learning rates{', on the first device alone' if devices > 1 else ''}"
        )
    return kept


def shared_plan(
    task: Task, plans: Mapping[str, tuple[Split, Key, Layout]], settings: Mapping[str, Any], data: Mapping[str, Any],
    upstream: Upstream, dtype: str, numerics: Numerics,
) -> tuple[Split, Key, Layout]:  # fmt: skip
    """One set of items for all splits (`Task.one_store`), in the order of their paths: folds then find it made."""
    items = {item.path: item for split, _, _ in plans.values() for item in split.items}
    ordered = [replace(items[path], index=number) for number, path in enumerate(sorted(items))]
    split = Split("all", ordered, list(range(len(ordered) + 1)))
    return split, *plan(task, split, upstream, data_identity(task, split, settings, data), dtype, numerics)


def part_of(features: Features, whole: Split, split: Split) -> Features:
    """The features of a split out of those of `shared_plan`."""
    numbers = {item.path: number for number, item in enumerate(whole.items)}
    return features.part([numbers[item.path] for item in split.items])


def features_of_splits(
    task: Task, expert: Any, plans: Mapping[str, tuple[Split, Key, Layout]], settings: Mapping[str, Any],
    data: Mapping[str, Any], upstream: Upstream, store: FeatureStore, device: torch.device, frames_dtype: str,
    batch_seconds: float, budget_gb: float, bar: Bar = no_bar, say: Callable[[str], None] = lambda text: None,
    numerics: Numerics = FLOAT32, devices: Sequence[torch.device] = (), beside: Sequence[Upstream] = (),
) -> dict[str, Features | Streamed]:  # fmt: skip
    """The features of each split of `plan_splits`: from the store, computed into it, or computed when asked for.

    Args:
        devices: see `extract`.
        beside: other upstreams that will be scored on the task: their features are computed in the same pass, where
            they have the same layout and the disk has room.

    Raises:
        SpeechFTError: over budget, unreadable files, a full disk.
    """
    sources = dict(plans)
    if task.one_store:
        sources = {"all": shared_plan(task, plans, settings, data, upstream, frames_dtype, numerics)}
    stored = what_fits(task, sources, store, budget_gb, say, len(devices))
    company = _company(task, {name: sources[name] for name in stored}, upstream, beside, store, frames_dtype, numerics)
    if company:
        say(f"{task.name}: features of {1 + len(company)} upstreams are computed in one pass")
    found: dict[str, Features | Streamed] = {}
    for name, (split, key, layout) in sources.items():
        if name in stored:
            others = {other: up for own in company for other, up in own.items() if other.data == key.data}
            found[name] = extract(
                task, expert, split, upstream, store, key, layout, device, batch_seconds,
                bar(f"{task.name} features {name}"), say, numerics, devices, others,
            )  # fmt: skip
        else:
            compute = computer(task, expert, split, upstream, key.kind, device, batch_seconds, numerics, fresh=True)
            found[name] = Streamed(compute, key, layout)
    whole = found.get("all")
    if not isinstance(whole, Features):
        return found
    return {name: part_of(whole, sources["all"][0], split) for name, (split, _, _) in plans.items()}


def _company(
    task: Task, sources: Mapping[str, tuple[Split, Key, Layout]], upstream: Upstream, beside: Sequence[Upstream],
    store: FeatureStore, dtype: str, numerics: Numerics,
) -> list[dict[Key, Upstream]]:  # fmt: skip
    """Upstreams of `beside` that lack features which are missing of this upstream, too, as many as the disk has room
    for, by their keys for each of the sets."""
    lacking = [one for one in sources.values() if store.missing_shards(*one[1:])]
    left = room(store.root, 0.0)[1] - sum(store.missing_bytes(*one[1:]) for one in lacking)
    names = {upstream.identity.key}
    found = []
    for other in beside:
        if other.identity.key in names or (other.num_layers, other.dim) != (upstream.num_layers, upstream.dim):
            continue
        own = [plan(task, split, other, key.data, dtype, numerics) for split, key, _ in lacking]
        need = sum(store.missing_bytes(key, layout) for key, layout in own)
        if [layout for _, layout in own] == [layout for _, _, layout in lacking] and 0 < need <= left:
            names.add(other.identity.key)
            left -= need
            found.append({key: other for key, _ in own})
    return found


def assemble(
    task: Task,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    upstream: Upstream,
    store: FeatureStore,
    expdir: Path,
    *,
    seed: int,
    device: torch.device,
    frames_dtype: str,
    batch_seconds: float,
    budget_gb: float,
    bar: Bar = no_bar,
    say: Callable[[str], None] = lambda text: None,
    numerics: Numerics = FLOAT32,
    devices: Sequence[torch.device] = (),
    beside: Sequence[Upstream] = (),
) -> FastRun:
    """Everything up to the first step: modules, items, features. The random generators end as after `Runner.__init__`.

    Raises:
        SpeechFTError: over budget, unreadable files, a full disk.
    """
    config = task.config(settings, data, expdir)
    featurizer, expert = build_modules(task, config, upstream, expdir, seed, device)
    after_init = saved.random_state()
    plans = plan_splits(task, expert, upstream, settings, data, frames_dtype, numerics)
    features = features_of_splits(
        task, expert, plans, settings, data, upstream, store, device, frames_dtype, batch_seconds, budget_gb, bar, say,
        numerics, devices, beside,
    )  # fmt: skip
    splits = {name: FeatureSplit(task, expert, split, features[name], device) for name, (split, _, _) in plans.items()}
    saved.set_random_state(after_init)
    run = FastRun(task, config, featurizer, expert, splits, seed, device, progress=bar(f"{task.name} head"))
    run.data = sha256_json([key.data for _, key, _ in plans.values()])
    return run
