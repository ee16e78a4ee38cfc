"""`merge.json`, the record of a merge, as others read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json

RECORD = "merge.json"


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
