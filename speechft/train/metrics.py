"""`metrics.jsonl`: a line per logging step; a resumed run drops the lines it is about to write again."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.files import write_text
from speechft.train.trackers import Tracker


class MetricsFile:
    """Appends JSON lines; figures that are not finite become null.

    Args:
        path: the file.
        step: lines of later steps are removed first (they will come again).
        trackers: get every line too.
    """

    def __init__(self, path: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        self._path, self._trackers = path, trackers
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        kept = [line for line in kept if not (line["step"] == step and line.get("event"))]
        self._earlier = max((line.get("wall_seconds", 0.0) for line in kept), default=0.0)
        self._began = time.monotonic()
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        for tracker in trackers:
            tracker.begin(kept)

    def write(self, **values: Any) -> None:
        """One line; `wall_seconds` counts the time spent in all parts of an interrupted run."""
        values["wall_seconds"] = round(self._earlier + time.monotonic() - self._began, 3)
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")
        for tracker in self._trackers:
            tracker.add(finite)

    def close(self) -> None:
        """Nothing more will come."""
        for tracker in self._trackers:
            tracker.end()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a line cut off by a crash is passed over."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean over those that have it."""
    names = dict.fromkeys(name for one in figures for name in one)
    return {name: statistics.fmean(one[name] for one in figures if name in one) for name in names}
