"""Stage 2: weight-space interpolation with the pre-trained checkpoint, tensor by tensor, several α in one pass."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speechft.checkpoints.convert import add_beside, as_folder, check_beside
from speechft.checkpoints.folder import HEAD, NATIVE, WEIGHTS, misfit
from speechft.checkpoints.hashing import streamed_sha256
from speechft.checkpoints.stream import FolderReader, SafetensorsWriter, TensorInfo
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, remove_partials, whole_folder
from speechft.merge.card import merged_card
from speechft.merge.registry import Method, method_named
from speechft.runs import Run
from speechft.upstreams.load import load_upstream, locate
from speechft.versions import versions

_COMPUTING = (
    "hidden_act", "feat_extract_activation", "feat_extract_norm", "do_stable_layer_norm", "num_attention_heads",
    "conv_kernel", "conv_stride", "num_conv_pos_embedding_groups", "layer_norm_eps", "squeeze_factor", "num_buckets",
    "max_bucket_distance", "conv_pos_batch_norm", "feat_proj_layer_norm",
)  # fmt: skip
"""What of a configuration changes the computation, though not the shapes of the weights."""


@dataclass(frozen=True)
class Merged:
    """A merged model: its α and its folder."""

    alpha: float
    folder: Path


def merge_run(run: Run, alphas: Sequence[float] = (0.25,), method: str = "linear", out: Path | None = None,
              extrapolate: bool = False, to: str | None = None) -> list[Merged]:  # fmt: skip
    """Merge a run's result with the upstream it started from; the arguments are those of `merge`.

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
    return merge(
        pretrained, [run.finetuned], alphas, method, out or run.merged, extrapolate, str(record["sha256"]), to
    )  # fmt: skip


def merge(
    pretrained: str | Path,
    finetuned: Sequence[str | Path],
    alphas: Sequence[float] = (0.25,),
    method: str = "linear",
    out: str | Path = "merged",
    extrapolate: bool = False,
    pretrained_sha256: str | None = None,
    to: str | None = None,
) -> list[Merged]:
    """Interpolate fine-tuned upstreams with the pre-trained one they share.

    Args:
        pretrained: θ0: a Hugging Face folder, a native `.pt` file, or a hub name.
        finetuned: θ'_k: folders of the same architecture.
        alphas: weights of the fine-tuned side; each gives `out/alpha-A/`.
        method: a name of the registry.
        out: where the merged folders go; old ones are replaced whole.
        extrapolate: allow α outside [0, 1].
        pretrained_sha256: refuse another θ0 than this one.
        to: `s3prl` puts `s3prl.pt`, which plain `s3prl.hub` loads, into every merged folder; `hf` does not; None does
            for families that s3prl cannot read from a folder (WavLM, DeCoAR 2.0).

    Returns:
        A folder per α, reloaded and run once before it got its name.

    Raises:
        UsageError: unknown method, α out of range, a family that s3prl has no format for.
        SpeechFTError: parents that do not fit together, or an update that is zero.
    """
    chosen = method_named(method)
    alphas = _checked(alphas, extrapolate)
    if not finetuned:
        raise UsageError("there is nothing to merge", "give at least one --finetuned")
    base = FolderReader(as_folder(locate(str(pretrained))))
    tuned = [FolderReader(as_folder(locate(str(path)))) for path in finetuned]
    check_beside(str(base.config.get("model_type")), to, str(pretrained))
    _check_parents(base, tuned)
    base_hash = streamed_sha256(base.names(), base.read)
    if pretrained_sha256 is not None and base_hash != pretrained_sha256:
        raise SpeechFTError(
            f"{base.folder} is not the upstream that the run started from (its weights hash differs)",
            "give the right one with --pretrained and --finetuned",
        )
    parents = [{"role": "pretrained", "path": str(pretrained), "sha256": base_hash}]
    for path, reader in zip(finetuned, tuned, strict=True):
        parents.append({"role": "finetuned", "path": str(path), "sha256": streamed_sha256(reader.names(), reader.read)})

    update = _update_norms(base, tuned)
    say(f"‖τ‖ = {update['norm']:.4g}, {100 * update['relative']:.2f} % of ‖θ0‖")
    if update["norm"] == 0.0:
        raise SpeechFTError(
            "the fine-tuned weights equal the pre-trained ones: there is no update to merge",
            "was the upstream frozen throughout, or the same folder given twice?",
        )
    return _write(base, tuned, alphas, chosen, Path(out).expanduser().resolve(), parents, update, to)


def _write(base: FolderReader, tuned: list[FolderReader], alphas: list[float], method: Method, out: Path,
           parents: list[dict[str, str]], update: dict[str, Any], to: str | None) -> list[Merged]:  # fmt: skip
    infos = {}
    for name in base.names():
        info = base.info(name)
        kind = info.dtype
        if kind.is_floating_point:
            for reader in tuned:
                kind = torch.promote_types(kind, reader.info(name).dtype)
        infos[name] = TensorInfo(kind, info.shape)
    targets = [out / f"alpha-{alpha:g}" for alpha in alphas]
    remove_partials(out)
    with contextlib.ExitStack() as folders:
        temporaries = [folders.enter_context(whole_folder(target)) for target in targets]
        with contextlib.ExitStack() as files:
            writers = [files.enter_context(SafetensorsWriter(temporary / WEIGHTS, infos)) for temporary in temporaries]
            for name, info in infos.items():
                origin = base.read(name)
                others = [reader.read(name) for reader in tuned] if info.dtype.is_floating_point else []
                for alpha, writer in zip(alphas, writers, strict=True):
                    merged = method.function(origin, others, alpha) if others else origin
                    writer.write(name, merged.to(info.dtype))
        for alpha, temporary in zip(alphas, temporaries, strict=True):
            # The fine-tuned side says how its input was normalised; the hub's file of a base model says otherwise.
            folder_with_config(temporary, base.config, tuned[0].preprocessor)
            for name in (HEAD, NATIVE):  # the head of the pre-training, where it is known, stays θ0's
                if (base.folder / name).is_file():
                    shutil.copyfile(base.folder / name, temporary / name)
            entry = add_beside(temporary, to, f"the merged model (alpha {alpha:g})")
            _texts(temporary, alpha, method, parents, update, entry)
            _run_once(temporary)
    return [Merged(alpha, target) for alpha, target in zip(alphas, targets, strict=True)]


def _texts(
    folder: Path,
    alpha: float,
    method: Method,
    parents: list[dict[str, str]],
    update: dict[str, Any],
    hub_entry: str | None,
) -> None:
    reader = FolderReader(folder)
    record = {
        "method": method.name, "formula": method.formula, "paper": method.paper, "alpha": alpha,
        "alpha_means": "the weight of the fine-tuned side: 0 is the pre-trained model, 1 the fine-tuned one",
        "parents": parents, "update": update, "sha256": streamed_sha256(reader.names(), reader.read),
        "s3prl_hub": hub_entry, "versions": versions(),
    }  # fmt: skip
    (folder / "merge.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(merged_card(record), encoding="utf-8")


def folder_with_config(folder: Path, config: dict[str, Any], preprocessor: dict[str, Any]) -> Path:
    """Put the two configuration files beside merged weights, so that the folder loads anywhere."""
    for name, value in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _run_once(folder: Path) -> None:
    """Load what was written and run it: a merge that cannot be used is an error now, not in stage 3."""
    upstream = load_upstream(folder)
    with torch.inference_mode():
        hidden = upstream([torch.sin(torch.arange(16_000) / 20.0)])
    if not all(bool(torch.isfinite(state).all()) for state in hidden.states):
        raise SpeechFTError("the merged upstream gives features that are not finite", "try an alpha between 0 and 1")


def _checked(alphas: Sequence[float], extrapolate: bool) -> list[float]:
    if not alphas:
        raise UsageError("no alpha was given", "0.25 is the paper's")
    for alpha in alphas:
        if not math.isfinite(alpha):
            raise UsageError(f"alpha {alpha} is not a number", "0.25 is the paper's")
        if not 0.0 <= alpha <= 1.0 and not extrapolate:
            raise UsageError(
                f"alpha {alpha:g} is outside [0, 1]", "that extrapolates: add --extrapolate if you mean it"
            )
    names = [f"{alpha:g}" for alpha in set(alphas)]
    if len(set(names)) < len(names):
        raise UsageError("two alphas are so near that their folders would have one name", "give at most six digits")
    return sorted(set(alphas))


def _check_parents(base: FolderReader, tuned: list[FolderReader]) -> None:
    if len({bool(reader.preprocessor.get("do_normalize", True)) for reader in tuned}) > 1:
        raise SpeechFTError(
            "the fine-tuned models disagree about input normalisation (do_normalize)", "merge models trained alike"
        )
    for reader in tuned:
        ours, theirs = base.config.get("model_type"), reader.config.get("model_type")
        if ours != theirs:
            raise SpeechFTError(
                f"{reader.folder} is a {theirs}, {base.folder} a {ours}", "merge models of one architecture"
            )
        other = [key for key in _COMPUTING if base.config.get(key) != reader.config.get(key)
                 and key in base.config and key in reader.config]  # fmt: skip
        if other:
            raise SpeechFTError(
                f"{reader.folder} computes otherwise than {base.folder}: {', '.join(other)} differ in config.json",
                "merge a model with its own parent",
            )
        found = misfit(base.shapes(), reader.shapes(), "that θ0 lacks")
        if found:
            raise SpeechFTError(
                f"{reader.folder} does not fit {base.folder}: {found}", "merge a model with its own parent"
            )


def _update_norms(base: FolderReader, tuned: list[FolderReader]) -> dict[str, Any]:
    """‖mean τ‖, ‖θ0‖ and their ratio, overall and per part of the model (first two levels of the names)."""
    parts: dict[str, list[float]] = {}
    for name in base.names():
        if not base.info(name).dtype.is_floating_point:
            continue
        origin = base.read(name).double()
        update = sum((reader.read(name).double() - origin for reader in tuned), torch.zeros_like(origin)) / len(tuned)
        words = name.split(".")
        part = ".".join(
            words[:3] if words[:2] == ["encoder", "layers"] else words[:2] if words[0] == "encoder" else words[:1]
        )
        sums = parts.setdefault(part, [0.0, 0.0])
        sums[0] += float(update.square().sum())
        sums[1] += float(origin.square().sum())
    square, origin_square = (sum(sums[index] for sums in parts.values()) for index in (0, 1))
    return {
        "norm": math.sqrt(square),
        "relative": math.sqrt(square / origin_square) if origin_square else 0.0,
        "parts": {part: math.sqrt(a / b) if b else math.sqrt(a) for part, (a, b) in parts.items()},
    }
