"""The folders that merges go to: their names, and what must not be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError, UsageError
from speechft.merge.alphas import Choice
from speechft.merge.parents import Parents
from speechft.merge.record import RECORD, read_record

_ELSEWHERE = "choose another folder with --out"


def folder_name(method: str, alpha: float, choice: Choice, effective: bool = False) -> str:
    """`alpha-0.25`; with another method than linear, or α that is not one for all, a name of its own."""
    words = [] if method == "linear" else [method]
    words += ["alpha", "by-depth" if choice.by_depth else f"{alpha:g}"]
    if choice.at or choice.keep:
        words.append("varied")
    if effective:
        words.append("effective")
    return "-".join(words)


def check_target(target: Path, parents: Parents) -> None:
    """Whether a merge may take this place: nothing is there, or another merge that is none of the parents.

    Raises:
        UsageError: something else is there.
    """
    for path, place in zip(parents.paths, parents.places, strict=True):
        if target == place or target in place.parents:
            what = "is a parent of this merge" if target == place else f"holds a parent of this merge ({path})"
            raise UsageError(f"{target} {what}: it would be replaced", _ELSEWHERE)
        if place in target.parents:
            raise UsageError(f"{target} would lie inside a parent of this merge ({path})", _ELSEWHERE)
    if target.is_symlink():
        raise UsageError(f"{target} is a link, which a merge does not follow", f"remove it, or {_ELSEWHERE}")
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is a file", f"move it, or {_ELSEWHERE}")
    if any(target.iterdir()) and not _is_merge(target):
        raise UsageError(
            f"{target} is no merged model (no readable {RECORD}): it would be replaced", f"move it, or {_ELSEWHERE}"
        )


def _is_merge(folder: Path) -> bool:
    try:
        return bool(read_record(folder))
    except SpeechFTError:
        return False


def replaces_another(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a folder holds another merge than the one of a record, which has its name."""

    def identity(one: Mapping[str, Any]) -> list[Any]:
        parents = [parent.get("sha256") for parent in one.get("parents", [])]
        return [parents, *(one.get(key) for key in ("method", "parameters", "choices"))]

    try:
        old = read_record(folder)
    except SpeechFTError:
        return False
    return bool(old) and identity(old) != identity(record)
