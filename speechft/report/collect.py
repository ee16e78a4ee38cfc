"""Reading what SUPERB evaluations left: scores, and per-utterance results for intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft.files import read_json


@dataclass(frozen=True)
class Score:
    """One model on one task with one seed.

    Attributes:
        value: the main metric in per cent.
        higher_better: its direction.
        utterances: `[test utterances, 2]` float64: what counts (errors, correct answers, or a value) and of how much
            (the reference's length, or 1, or a fold's weight), in the order of the utterances' names, so that models
            can be paired.
    """

    task: str
    metric: str
    value: float
    higher_better: bool
    seed: int
    utterances: np.ndarray
    record: dict[str, Any]


def read_scores(folder: Path) -> dict[str, Score]:
    """All finished tasks of one model: `OUT/MODEL` -> task name -> score."""
    return {path.stem: read_score(path) for path in sorted(folder.glob("*.json"))}


def read_score(path: Path) -> Score:
    """One `TASK.json` and the `TASK.utterances.jsonl` beside it.

    Raises:
        SpeechFTError: the file is missing or damaged.
    """
    record = read_json(path)
    lines = [
        json.loads(line) for line in path.with_suffix(".utterances.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    lines.sort(key=lambda line: str(line["file"]))
    counts = [_counts(line) for line in lines]
    return Score(
        str(record["task"]), str(record["metric"]), 100 * float(record["metrics"][record["metric"]]),
        bool(record["higher_better"]), int(record["seed"]), np.array(counts, dtype=np.float64), record,
    )  # fmt: skip


def _counts(line: dict[str, Any]) -> tuple[float, float]:
    if "errors" in line:
        return line["errors"], line["length"]
    weight = line.get("weight", 1)  # of an utterance of a fold, so that folds of different size count the same
    return line.get("correct", line.get("value")) * weight, weight


def paired_interval(
    base: list[Score], other: list[Score], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The difference `other - base` in points of the metric, with a 95 % interval by paired bootstrap.

    Test utterances are drawn with replacement, the same ones for both models and for all their seeds; the interval
    therefore speaks of the test set, and the spread over seeds is shown beside it.

    Args:
        base, other: scores of the same task, one per seed, in the same order of seeds.

    Returns:
        Mean difference, lower and upper end.
    """
    ours, theirs = (np.stack([score.utterances for score in scores]) for scores in (other, base))
    count = ours.shape[1]
    if theirs.shape != ours.shape:
        raise ValueError("the two models were not scored on the same utterances")

    def rate(counts: np.ndarray) -> np.ndarray:  # [draws, seeds, utterances, 2] -> [draws]
        return 100 * (counts[..., 0].sum(-1) / counts[..., 1].sum(-1)).mean(-1)

    generator = np.random.default_rng(seed)
    differences = []
    for _ in range(draws // 100):
        chosen = generator.integers(count, size=(100, count))
        differences.append(rate(ours[:, chosen].swapaxes(0, 1)) - rate(theirs[:, chosen].swapaxes(0, 1)))
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5])
    return float(rate(ours[None])[0] - rate(theirs[None])[0]), float(low), float(high)
