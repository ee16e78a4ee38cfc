"""What a reader needs who was not there: how each run was configured, and what everything was computed with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechft.files import read_json
from speechft.report.rows import Row
from speechft.runs import Run
from speechft.versions import versions


def described_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Each run: `name`, `folder`, `config` (key with dots -> value), `text` of `config.yaml`, `pretrained`."""
    from speechft.config.compose import flatten, read_config

    found = []
    for folder in folders:
        run = Run(folder)
        try:
            config, text = flatten(read_config(run.config)), run.config.read_text(encoding="utf-8")
        except Exception:  # written by hand, or by another version
            config, text = {}, ""
        try:
            pretrained = read_json(run.pretrained)
        except Exception:
            pretrained = {}
        known = {key: pretrained.get(key) for key in ("name", "source", "sha256", "versions")}
        found.append({"name": folder.name, "folder": str(folder), "config": config, "text": text, "pretrained": known})
    return found


def differing(runs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings in which runs differ: key -> a value for each run."""
    keys = dict.fromkeys(key for run in runs for key in run["config"])
    values = {key: [run["config"].get(key) for run in runs] for key in keys}
    return {key: own for key, own in values.items() if any(one != own[0] for one in own)}


def environment(rows: Iterable[Row]) -> dict[str, Any]:
    """`here`: where the report was made; `scores`: versions that results were made with, each set once."""
    made: dict[str, dict[str, Any]] = {}
    seen: set[Path] = set()
    for score in (score for row in rows for scores in row.scores.values() for score in scores):
        if score.path in seen:
            continue
        seen.add(score.path)
        own = {str(key): str(value) for key, value in (score.record.get("versions") or {}).items()}
        key = ", ".join(f"{name} {version}" for name, version in sorted(own.items()))
        if own:
            made.setdefault(key, {"versions": own, "results": 0})["results"] += 1
    here = {
        "system": platform.platform(terse=True), "machine": platform.machine(), "cpus": os.cpu_count(),
        "python": platform.python_version(), "versions": versions(),
    }  # fmt: skip
    return {"here": here, "scores": list(made.values())}
