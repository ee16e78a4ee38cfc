"""`merge.json`, the record of a merge, as others read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json

RECORD = "merge.json"


def variant(record: Mapping[str, Any]) -> str:
    """In what a merge is not the plain linear one, in words: `ties density=0.2, keep layers.0`; empty where in nothing.

    Args:
        record: with `method`, `parameters` and `choices`, as `merge.json` has them.
    """
    method, choices = str(record.get("method") or "linear"), record.get("choices") or {}
    given = {key: value for key, value in (record.get("parameters") or {}).items() if value is not None}
    words = [f"{key}={_short(value)}" for key, value in given.items() if key != "seed"]
    words = words if method == "linear" else [method, *words]
    others = [f"{key.replace('_', ' ')} {_short(value)}" for key, value in choices.items()]
    return ", ".join([*([" ".join(words)] if words else []), *others])


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_short(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_record(folder: Path) -> dict[str, Any]:
    """How a folder's model was merged; {} where it was not.

    Raises:
        SpeechFTError: the file is damaged, or says something else.
    """
    file = folder / RECORD
    if not file.is_file():
        return {}
    record = read_json(file)
    parents = record.get("parents", []) if isinstance(record, dict) else None
    if not isinstance(parents, list) or not all(isinstance(one, dict) and "path" in one for one in parents):
        raise SpeechFTError(f"{file} is no record of a merge", "merge again, or remove the file")
    return dict(record)
