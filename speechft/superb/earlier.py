"""Results of other evaluations in the same place (another seed, rate or recipe): put aside, and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json

FOLDER = ".earlier"
"""Beside the results of a model; reports and hand-overs do not look into it."""

_NAMES = {"name", "source"}  # of an upstream: two of one content are one


def finished(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The result that is the same evaluation's: the one in place, or one that was put aside. Nothing is moved.

    Args:
        path: `OUT/MODEL/TASK.json`.
        fingerprint: `Settings.fingerprint`.
    """
    for place in (path, _aside(path, fingerprint)):
        result = _read(place)
        if result is not None and result.get("fingerprint") == fingerprint:
            return result
    return None


def take_up(path: Path, fingerprint: str) -> None:
    """Let a result that was put aside, if it is, change places with the one in place."""
    result = _read(path)
    if result is None or result.get("fingerprint") != fingerprint:
        put_aside(path)
        _move(_aside(path, fingerprint), path)


def put_aside(path: Path) -> None:
    """Make room for a new result; what is there of another evaluation is kept. A damaged one is not worth keeping."""
    result = _read(path)
    if result is None or not isinstance(result.get("fingerprint"), str):
        return
    aside = _aside(path, result["fingerprint"])
    aside.parent.mkdir(exist_ok=True)
    _move(path, aside)


def other(path: Path, new: Mapping[str, Any]) -> str | None:
    """In what the result in place differs from the evaluation that begins, for a line: `seed 0, now 1`.

    Args:
        path: `OUT/MODEL/TASK.json`.
        new: some of what the new result will hold.

    Returns:
        None where there is none.
    """
    result = _read(path)
    if result is None:
        return None
    now = json.loads(json.dumps(new))
    phrases = []
    for key, value in now.items():
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            inside = sorted(one for one in {*before, *value} - _NAMES if before.get(one) != value.get(one))
            phrases += [f"{one} {_short(before.get(one))}, now {_short(value.get(one))}" for one in inside]
        elif before != value:
            phrases.append(f"{key} {_short(before)}, now {_short(value)}")
    return "; ".join(phrases) or "other files, or features of another version"


def _aside(path: Path, fingerprint: str) -> Path:
    return path.parent / FOLDER / f"{path.stem}-{fingerprint[:16]}.json"


def _utterances(path: Path) -> Path:
    return path.with_name(f"{path.stem}.utterances.jsonl")


def _move(source: Path, target: Path) -> None:
    """The list of utterances first: a result is only one with it, and interrupted in between both can be told apart."""
    if _utterances(source).is_file():
        _utterances(source).replace(_utterances(target))
    source.replace(target)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        result = read_json(path)
    except SpeechFTError:
        return None  # damaged: computed again and replaced
    return result if isinstance(result, dict) else None


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
