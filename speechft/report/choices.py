"""How α was chosen for the runs of a report, where `speechft merge --alpha auto` chose it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechft.choosing.picture import cells, told
from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.merge.record import variant

_KEPT = ("chosen", "rule", "why", "objectives", "target", "reached", "draws", "front", "merge")


def read_choices(runs: Iterable[Path], notes: list[str]) -> list[dict[str, Any]]:
    """What of each run's `merged/choice.json`, and those of other methods beside it, a reader wants to know.

    Args:
        runs: folders.
        notes: what cannot be read is said here.

    Returns:
        For each: `run`, its name, with the method where it is not plain linear merging; what the file holds but for
        settings and details, `head` and `body` of its table, and `told`, its sentences.
    """
    found = []
    for path in (path for run in runs for path in sorted((run / "merged").glob("choice*.json"))):
        try:
            content = read_json(path)
            rows = [{key: one[key] for key in one if key != "details"} for one in content["candidates"]]
            kept = {key: content[key] for key in _KEPT if key in content}
            head, body = cells(content)
            text = {"head": head, "body": body, "told": told(content)}
        except (SpeechFTError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"left out: {path} is not the result of a choice ({type(error).__name__})")
            continue
        merge = f", {variant(content.get('merge') or {})}".removesuffix(", ")
        found.append({"run": f"{path.parent.parent.name}{merge}", **kept, "candidates": rows, **text})
    return found
