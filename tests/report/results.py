"""Results of evaluations, made by hand: files as `speechft eval superb` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DIRECTIONS = {"per": False, "wer": False, "acc": True, "eer": False, "der": False, "mtwv": True, "slot_type_f1": True}


def identity(weights: str, name: str = "", source: str = "") -> dict[str, Any]:
    return {"name": name or weights, "family": "hubert", "source": source or f"someone/{weights}", "normalize": False,
            "sha256": weights, "padding": "own", "chunk_seconds": None, "chunk_overlap": 0.0}  # fmt: skip


def write_result(
    folder: Path, task: str, metrics: Mapping[str, float], lines: Sequence[Mapping[str, Any]] | None,
    upstream: Mapping[str, Any], **changes: Any,
) -> Path:  # fmt: skip
    """`folder/TASK.json` and `TASK.utterances.jsonl`; the first metric is the main one, all are fractions."""
    metric = next(iter(metrics))
    settings = {"steps": 100, "batch_size": 8, "lr": 0.01, "num_workers": 4, **changes.pop("settings", {})}
    record = {
        "task": task, "upstream": dict(upstream), "engine": "fast", "precision": "no", "compile": False,
        "metrics": dict(metrics), "metric": metric, "higher_better": DIRECTIONS[metric], "lr": settings["lr"],
        "steps": settings["steps"], "seed": 1337, "data": "data-1", "settings": settings,
    } | changes  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.json"
    path.write_text(json.dumps(record))
    if lines is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path.with_suffix(".utterances.jsonl").write_text(text)
    return path


def write_accuracy(folder: Path, task: str, hits: Sequence[int], upstream: Mapping[str, Any], **changes: Any) -> Path:
    lines = [{"file": f"u{number:03d}", "correct": hit} for number, hit in enumerate(hits)]
    return write_result(folder, task, {"acc": sum(hits) / len(hits)}, lines, upstream, **changes)


def write_errors(
    folder: Path, task: str, metric: str, counts: Sequence[tuple[int, int]], upstream: Mapping[str, Any], **changes: Any
) -> Path:
    lines = [{"file": f"u{n:03d}", "errors": errors, "length": length} for n, (errors, length) in enumerate(counts)]
    rate = sum(errors for errors, _ in counts) / sum(length for _, length in counts)
    return write_result(folder, task, {metric: rate}, lines, upstream, **changes)


def write_run(folder: Path, pretrained: str, finetuned: str, merged: Mapping[float, str], seed: int = 0) -> Path:
    """A run that was merged, without any weights: what `report` reads of it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: {seed}\ntrainer:\n  lr: 0.001\nname: x\n")
    (folder / "pretrained.json").write_text(json.dumps({"name": "base", "source": "base", "sha256": pretrained}))
    for alpha, weights in merged.items():
        record = {
            "method": "linear", "alpha": alpha, "sha256": weights,
            "parents": [{"role": "pretrained", "path": "base", "sha256": pretrained},
                        {"role": "finetuned", "path": str(folder / "finetuned"), "sha256": finetuned}],
        }  # fmt: skip
        target = folder / "merged" / f"alpha-{alpha:g}"
        target.mkdir(parents=True)
        (target / "merge.json").write_text(json.dumps(record))
        (target / "config.json").write_text("{}")
    return folder
