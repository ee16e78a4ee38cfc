"""What is handed over does not say where this machine keeps things."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def absolute(record: Mapping[str, Any]) -> list[str]:
    """Absolute paths that a `merge.json` holds."""
    found = [*(str(one["path"]) for one in record.get("parents", ())), *_statistics(record)]
    return [one for one in found if one.startswith("/")]


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """A `merge.json` with parents by the last two names of their paths and files of statistics by the last one."""
    told = dict(record)
    if "parents" in record:
        told["parents"] = [{**one, "path": last_names(str(one["path"]))} for one in record["parents"]]
    if files := _statistics(record):
        told["choices"] = {**record["choices"], "statistics": [Path(one).name for one in files]}
    return told


def _statistics(record: Mapping[str, Any]) -> list[str]:
    return [str(one) for one in (record.get("choices") or {}).get("statistics") or ()]


def without_places(text: str, places: Sequence[str] = ()) -> str:
    """A text with absolute paths in backticks, and these paths anywhere, by their last two names."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, last_names(place))
    return re.sub(r"`(/[^`]+)`", lambda found: f"`{last_names(found.group(1))}`", text)


def last_names(path: str) -> str:
    """`/home/me/runs/a/finetuned` -> `a/finetuned`; what is no absolute path stays."""
    return "/".join(Path(path).parts[-2:]) if path.startswith("/") and len(Path(path).parts) > 2 else path
