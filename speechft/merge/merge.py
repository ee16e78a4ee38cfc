"""Stage 2: weight-space merging with the pre-trained checkpoint, tensor by tensor, several α in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.checkpoints.tensor_file import SafetensorsWriter
from speechft.checkpoints.weight_files import WEIGHTS
from speechft.console import say
from speechft.errors import SpeechFTError
from speechft.files import read_json, sha256_file, whole_folder
from speechft.merge.alphas import Choice
from speechft.merge.finishing import finish
from speechft.merge.layout import file_of, prefix_of, write_head
from speechft.merge.norms import UpdateNorms, told
from speechft.merge.parents import Parents, open_parents, same_weights
from speechft.merge.plan import planned
from speechft.merge.statistics import Statistics
from speechft.merge.streaming import Output, Recipe, Seen, stream
from speechft.merge.targets import replaces_another
from speechft.merge.thresholds import thresholds
from speechft.runs import Run
from speechft.sharing import shared_folder
from speechft.upstreams.load import locate

ALPHA_MEANS = "the weight of the fine-tuned side: 0 is the pre-trained model, 1 the fine-tuned one"


@dataclass(frozen=True)
class Merged:
    """A merged model: its α (with `alpha_by_depth`, the mean over depth) and its folder."""

    alpha: float
    folder: Path


def merge_run(run: Run, alphas: Sequence[float] | None = None, method: str = "linear", out: Path | None = None,
              extrapolate: bool = False, to: str | None = None, *, checkpoints: Sequence[Path] | None = None,
              **choices: Any) -> list[Merged]:  # fmt: skip
    """Merge a run's result with the upstream it started from; the arguments are those of `merge`.

    Args:
        checkpoints: merge these checkpoints of the run, the earliest first, instead of its result. Those that still
            have θ0's weights, from before the unfreeze, are left out.

    Raises:
        SpeechFTError: the run is not finished, or its upstream has changed since.
    """
    if not run.finished:
        raise SpeechFTError(f"{run.folder} is not finished", "run its train command again; it goes on where it stopped")
    record = read_json(run.pretrained)
    if record.get("random_seed") is not None:
        raise SpeechFTError(
            f"{run.folder} was trained from fresh weights", "there is no pre-trained model to merge with"
        )
    pretrained = locate(str(record["source"]))
    finetuned = [run.finetuned] if checkpoints is None else moved(pretrained, checkpoints)
    return merge(
        pretrained, finetuned, alphas, method, out or run.merged, extrapolate, str(record["sha256"]), to, **choices
    )  # fmt: skip


def moved(pretrained: str | Path, checkpoints: Sequence[Path]) -> list[Path]:
    """The checkpoints whose weights are no longer θ0's.

    Raises:
        SpeechFTError: there are none.
    """
    if not checkpoints:
        raise SpeechFTError("the run has no checkpoints left", "train with trainer.keep above 1")
    parents = open_parents(pretrained, checkpoints)
    try:
        still = [same_weights(reader, parents.base) for reader in parents.tuned]
    finally:
        parents.close()
    for path, same in zip(checkpoints, still, strict=True):
        if same:
            say(f"{path.name} is left out: the upstream was still frozen there")
    kept = [path for path, same in zip(checkpoints, still, strict=True) if not same]
    if not kept:
        raise SpeechFTError("no checkpoint of the run has moved from the pre-trained weights", "train longer")
    say(f"merging {len(kept)} checkpoints: {', '.join(path.name for path in kept)}")
    return kept


def merge(
    pretrained: str | Path,
    finetuned: Sequence[str | Path],
    alphas: Sequence[float] | float | None = None,
    method: str = "linear",
    out: str | Path = "merged",
    extrapolate: bool = False,
    pretrained_sha256: str | None = None,
    to: str | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    alpha_at: Mapping[str, float] | None = None,
    alpha_by_depth: Sequence[float] | None = None,
    keep: Sequence[str] = (),
    weight_norm: str = "stored",
    statistics: Sequence[str | Path] | None = None,
    corpus: str | None = None,
    seed: int = 0,
    check: bool = True,
) -> list[Merged]:
    """Merge fine-tuned upstreams with the pre-trained one they share.

    Args:
        pretrained: θ0: a Hugging Face folder, a native `.pt` file, or a hub name.
        finetuned: θ'_k: folders of the same architecture, or checkpoints of stage 1 (`checkpoints/step-N`).
        alphas: weights of the fine-tuned side; each gives `out/alpha-A/` (`out/METHOD-alpha-A/` with another method
            than `linear`). One number will do; None takes the method's own, 0.25 for most.
        method: a name of the registry, or `path/to/file.py:function` (docs/own_merge_method.md).
        out: where the merged folders go; old merges of the same names are replaced whole. Several merges may write
            there at the same time.
        extrapolate: allow α outside [0, 1].
        pretrained_sha256: refuse another θ0 than this one.
        to: `s3prl` puts `s3prl.pt`, which plain `s3prl.hub` loads, into every merged folder; `hf` does not; None does
            for families that s3prl cannot read from a folder (WavLM, DeCoAR 2.0). It is written from the whole model,
            so memory is then a model.
        parameters: of the method, by name; the registry has their types, ranges and defaults.
        alpha_at: pattern -> α of the tensors it matches (`merge/alphas.py: matching`); the last match counts.
        alpha_by_depth: α from the first layer to the last, interpolated; instead of `alphas`.
        keep: patterns of tensors that stay θ0's.
        weight_norm: `stored` merges its g and v by themselves, as the published code does; `effective` merges the
            weight they stand for.
        statistics: for `fisher` and `regmean`: a file of every parent, θ0's first.
        corpus: instead: speech that they are collected on (`merge/collect.py`), into `out/statistics/`.
        seed: of what is drawn while they are collected.
        check: reload every result and run it once, from its file and in the memory of a module where weights are
            float32 (converted, so a whole model, where they are not). Without, memory is a piece of a tensor a parent,
            or a tensor where the method needs it whole.

    Returns:
        A folder per α, reloaded and run once before it got its name.

    Raises:
        UsageError: unknown method or parameter, α out of range, a pattern that matches nothing, a family that s3prl has
            no format for, a parent given twice, a place where something else than a merge is, or a parent.
        SpeechFTError: parents that do not fit together, weights that are not finite, or an update that is zero.
    """
    where = Path(out).expanduser().resolve()
    alphas = [float(alphas)] if isinstance(alphas, (int, float)) else alphas
    plan = planned(
        pretrained, finetuned, alphas, method, where, extrapolate, to, parameters=parameters, alpha_at=alpha_at,
        alpha_by_depth=alpha_by_depth, keep=keep, weight_norm=weight_norm, statistics=statistics, corpus=corpus,
    )  # fmt: skip
    chosen, choice, parents, found = plan.method, plan.choice, plan.parents, plan.statistics
    with contextlib.ExitStack() as opened:
        opened.callback(plan.close)
        opened.enter_context(shared_folder(where))
        if corpus is not None:
            from speechft.merge.collect import collect_all

            files = collect_all(parents, str(chosen.statistics), corpus, where / "statistics", seed)
            found = plan.statistics = Statistics(files, str(chosen.statistics), len(parents.paths))
        cuts = None
        if plan.whole:
            cuts = thresholds(parents.base, parents.tuned, plan.infos, plan.parameters["density"])
        recipe = Recipe(chosen, plan.parameters, found, plan.effective, cuts)
        layout = file_of(parents.base, plan.infos)
        with contextlib.ExitStack() as folders:
            temporaries = [folders.enter_context(whole_folder(target)) for target in plan.targets]
            with contextlib.ExitStack() as writers:
                outputs = [
                    Output(
                        alpha_map,
                        writers.enter_context(SafetensorsWriter(temporary / WEIGHTS, layout)),
                        UpdateNorms(plan.parents.parts),
                        prefix_of(parents.base),
                    )
                    for alpha_map, temporary in zip(plan.maps, temporaries, strict=True)
                ]
                seen = stream(parents, plan.infos, recipe, outputs)
                for output in outputs:
                    write_head(parents.base, output.writer)
            _check_seen(seen, parents, pretrained_sha256)
            for alpha, output in zip(plan.alphas, outputs, strict=True):
                if output.applied.norm == 0.0 and (alpha or any(choice.at.values())):
                    raise SpeechFTError(
                        "nothing of the update is left: the merged weights equal the pre-trained ones",
                        "keep fewer tensors, or choose another alpha or density",
                    )
            if found:
                found.check(seen.sha256)
            update = seen.update.record()
            for line in told(update):
                say(line)
            choices = _choices(choice, weight_norm, found)
            for alpha, target, temporary, output in zip(plan.alphas, plan.targets, temporaries, outputs, strict=True):
                record = {
                    "method": chosen.name, "formula": chosen.formula, "paper": chosen.paper,
                    "parameters": plan.parameters, "alpha": alpha, "choices": choices, "alpha_means": ALPHA_MEANS,
                    "parents": _parents(parents, seen), "update": update, "applied": output.applied.record(),
                    "sha256": output.sha256,
                }  # fmt: skip
                if replaces_another(target, record):
                    say(f"{target} holds another merge (settings or models): it is replaced; --out keeps both")
                finish(temporary, record, parents, plan.infos, to, check)
    return [Merged(alpha, target) for alpha, target in zip(plan.alphas, plan.targets, strict=True)]


def _choices(choice: Choice, weight_norm: str, statistics: Statistics | None) -> dict[str, Any]:
    """What else was chosen; nothing where all was left as it is."""
    found: dict[str, Any] = {}
    if choice.by_depth:
        found["alpha_by_depth"] = list(choice.by_depth)
    if choice.at:
        found["alpha_at"] = dict(choice.at)
    if choice.keep:
        found["keep"] = list(choice.keep)
    if weight_norm != "stored":
        found["weight_norm"] = weight_norm
    if statistics:
        found["statistics"] = [str(path) for path in statistics.paths]
        found["statistics_sha256"] = [sha256_file(path) for path in statistics.paths]
    return found


def _parents(parents: Parents, seen: Seen) -> list[dict[str, Any]]:
    base, *tuned = zip(parents.paths, seen.sha256, strict=True)
    records: list[dict[str, Any]] = [{"role": "pretrained", "path": base[0], "sha256": base[1]}]
    for (path, sha256), norms in zip(tuned, seen.updates, strict=True):
        update = norms.record()
        records.append({"role": "finetuned", "path": path, "sha256": sha256, "update": update["norm"]})
    return records


def _check_seen(seen: Seen, parents: Parents, pretrained_sha256: str | None) -> None:
    if pretrained_sha256 is not None and seen.sha256[0] != pretrained_sha256:
        raise SpeechFTError(
            f"{parents.base.folder} is not the upstream that the run started from (its weights hash differs)",
            "give the right one with --pretrained and --finetuned",
        )
    zero = [path for path, norms in zip(parents.paths[1:], seen.updates, strict=True) if norms.norm == 0.0]
    if len(zero) == len(parents.tuned) or seen.update.norm == 0.0:
        raise SpeechFTError(
            "the fine-tuned weights equal the pre-trained ones: there is no update to merge",
            "was the upstream frozen throughout, or the same folder given twice?",
        )
    if zero:
        raise SpeechFTError(f"{zero[0]} equals the pre-trained model: it would only weaken the others", "leave it out")
    for number, sha256 in enumerate(seen.sha256[1:], 1):
        if sha256 in seen.sha256[1:number]:
            same = parents.paths[seen.sha256.index(sha256, 1)]
            say(f"{parents.paths[number]} has the same weights as {same}: they count twice")
