"""The models that are merged: opened, and checked to fit together before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from speechft.checkpoints.computing import COMPUTING
from speechft.checkpoints.convention import tell
from speechft.checkpoints.convert import as_folder
from speechft.checkpoints.folder import LEARNER, OWN, misfit
from speechft.checkpoints.parts import norm_last, parts_of
from speechft.checkpoints.stream import FolderReader
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.load import locate
from speechft.upstreams.speech_encoder import FAMILIES


@dataclass
class Parents:
    """θ0 and the θ'_k, open for reading; what the user called them, and the folders or files that is, θ0's first."""

    base: FolderReader
    tuned: list[FolderReader]
    paths: list[str]
    places: list[Path]

    @cached_property
    def parts(self) -> dict[str, str]:
        """Canonical name -> part of the model (`checkpoints/parts.py`)."""
        return parts_of(self.base.names(), norm_last(self.base.config))

    def close(self) -> None:
        for reader in (self.base, *self.tuned):
            reader.close()


def open_parents(pretrained: str | Path, finetuned: Sequence[str | Path]) -> Parents:
    """Open and check.

    Args:
        pretrained: a folder, a native file or a hub name.
        finetuned: the same, or checkpoints of stage 1 (`checkpoints/step-N`).

    Raises:
        UsageError: there is no fine-tuned model, or one is given twice.
        SpeechFTError: a parent is damaged, or does not fit the others.
    """
    if not finetuned:
        raise UsageError("there is nothing to merge", "give at least one --finetuned")
    paths = [str(pretrained), *map(str, finetuned)]
    places = [_place(path) for path in paths]
    for number, place in enumerate(places[1:], 1):
        if place in places[1:number]:
            raise UsageError(f"{paths[number]} is given twice", "name each fine-tuned model once")
    base = FolderReader(as_folder(places[0]))
    parents = Parents(base, [_open(place, base) for place in places[1:]], paths, places)
    try:
        _check(parents.base, parents.tuned)
        for path, reader in zip(parents.paths[1:], parents.tuned, strict=True):
            if reader.overruled:
                tell(path)
    except SpeechFTError:
        parents.close()
        raise
    return parents


def _place(path: str) -> Path:
    folder = Path(path).expanduser()
    return (folder if (folder / LEARNER).is_file() else locate(path)).resolve()


def _open(place: Path, base: FolderReader) -> FolderReader:
    if (place / LEARNER).is_file():
        result = place.parent.parent / "finetuned"
        return FolderReader.of_training(place, FolderReader(result) if result.is_dir() else base)
    return FolderReader(as_folder(place))


def same_weights(one: FolderReader, other: FolderReader) -> bool:
    """Whether all tensors are equal; stops at the first that is not."""
    return all(torch.equal(one.read(name), other.read(name)) for name in one.names())


def _check(base: FolderReader, tuned: list[FolderReader]) -> None:
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
        other = [key for key in COMPUTING if base.config.get(key) != reader.config.get(key)
                 and key in base.config and key in reader.config]  # fmt: skip
        if other:
            raise SpeechFTError(
                f"{reader.folder} computes otherwise than {base.folder}: {', '.join(other)} differ in config.json",
                "merge a model with its own parent",
            )
        found = misfit(base.shapes(), reader.shapes(), "that θ0 lacks")
        if found:
            for line in differing(base, reader):
                say(line)
            raise SpeechFTError(
                f"{reader.folder} does not fit {base.folder}: {found}",
                "merge a model with its own parent"
                if ours in (*FAMILIES, "decoar2", "whisper", OWN)
                else f"{ours} is no architecture that speechft knows, so a head beside the upstream is not told apart",
            )
        kinds = {name: (base.info(name).dtype, reader.info(name).dtype) for name in base.names()}
        mixed = [f"{name} is {theirs} and not {ours}" for name, (ours, theirs) in kinds.items()
                 if ours.is_floating_point != theirs.is_floating_point]  # fmt: skip
        if mixed:
            more = f" and {len(mixed) - 3} more" if len(mixed) > 3 else ""
            raise SpeechFTError(
                f"{reader.folder} does not fit {base.folder}: {', '.join(mixed[:3])}{more}".replace("torch.", ""),
                "save both models in floating point",
            )


def differing(base: FolderReader, reader: FolderReader) -> list[str]:
    """Every tensor that two models do not share in name and shape, a line each."""
    ours, theirs = base.shapes(), reader.shapes()
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            shapes = [str(list(own[name])) if name in own else "missing" for own in (ours, theirs)]
            lines.append(f"  {name}: {shapes[0]} in θ0, {shapes[1]} in {reader.folder}")
    return lines
