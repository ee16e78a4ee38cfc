"""Per-utterance results in their several shapes, and how each becomes a score again from any draw of utterances.

A bootstrap draw gives every utterance a weight: how often it was drawn. Each shape turns weights into the metric, so
that a draw costs one pass over the numbers, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = Mapping[str, Any]
Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`[utterances, k]` numbers and `[draws, utterances]` weights -> `[draws]` fractions; NaN where undefined."""

_NAMES = ("file", "trial", "query", "utterance", "name", "id")


@dataclass(frozen=True)
class Shape:
    """One way in which results of single utterances are written.

    Attributes:
        name: of the shape.
        read: a line and the metric -> its numbers, or None where the line is of another shape.
        estimate: see `Estimate`.
    """

    name: str
    read: Callable[[Line, str], tuple[float, ...] | None]
    estimate: Estimate


@dataclass(frozen=True)
class Utterances:
    """What a bootstrap draws from.

    Attributes:
        names: of the utterances (trials, queries), sorted, each once: models are paired by them.
        numbers: `[utterances, k]` float64; what they mean is the shape's matter.
        shape: how they become a score.
    """

    names: tuple[str, ...]
    numbers: np.ndarray
    shape: Shape

    def __len__(self) -> int:
        return len(self.names)

    def score(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric of each draw, `[draws]`, as a fraction; without weights, of the set itself (one draw)."""
        weights = np.ones((1, len(self))) if weights is None else weights
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.shape.estimate(self.numbers, weights)


def _pooled(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A ratio of sums: error rates over a whole set, weighted by the length of the reference."""
    return (weights @ numbers[:, 0]) / (weights @ numbers[:, 1])


def equal_error_rate(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Where false alarms and misses are equally frequent, on the line between the two thresholds around it.

    As s3prl/downstream/sv_voxceleb1/utils.py has it (`roc_curve`, then `brentq` on its linear interpolation): trials of
    equal score are accepted together.

    Args:
        numbers: `[trials, 2]`: score, and label (1 the same speaker, 0 not).
        weights: `[draws, trials]`.
    """
    order = np.argsort(-numbers[:, 0], kind="stable")
    scores, same = numbers[order, 0], numbers[order, 1] > 0.5
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of the trials that share a score
    other = (~same).astype(np.float64)
    drawn = np.take(weights, order, axis=1)
    hits = drawn @ (1 - other)
    alarms = drawn.sum(axis=1) - hits
    share = np.where(same, 1 / hits[:, None], 1 / alarms[:, None])
    share *= drawn
    both = np.cumsum(share, axis=1, out=share)  # hits + false alarms: 0 to 2; the error rates are equal where it is 1
    if len(last) < len(scores):
        both = both[:, last]
    rates = np.full(len(weights), np.nan)
    for draw, after in enumerate((both >= 1).argmax(axis=1)):
        low, start = (both[draw, after - 1], last[after - 1] + 1) if after else (0.0, 0)
        end = last[after] + 1
        before = drawn[draw, :start] @ other[:start]  # false alarms below the crossing, and at it
        more = drawn[draw, start:end] @ other[start:end]
        rates[draw] = (before + (1 - low) / (both[draw, after] - low) * more) / alarms[draw]
    return rates


def _number(value: Any) -> float | None:
    """A finite number of JSON, or None."""
    if isinstance(value, (bool, int, float)) and np.isfinite(float(value)):
        return float(value)
    return None


def _numbers(*values: Any) -> tuple[float, ...] | None:
    found = [_number(value) for value in values]
    return None if None in found else tuple(float(value) for value in found if value is not None)


def _of_metric(line: Line, metric: str) -> tuple[float, ...] | None:
    """Counts of one of several metrics: `value_errors` over `value_length` are `slot_value_cer`'s, of whose name they
    bear a part."""
    for part in (metric, *metric.split("_")):
        if f"{part}_errors" in line:
            return _numbers(line[f"{part}_errors"], line.get(f"{part}_length"))
    return None


def _mean_of_metric(line: Line, metric: str) -> tuple[float, ...] | None:
    value = _numbers(line.get(metric))
    return None if value is None else (*value, 1.0)


def _ratio(line: Line, metric: str) -> tuple[float, ...] | None:
    del metric
    if "correct" in line and "errors" not in line:
        counts = _numbers(line["correct"], line.get("weight", 1))  # folds of different size count alike by weights
        return None if counts is None else (counts[0] * counts[1], counts[1])
    return _numbers(line.get("errors"), line.get("length"))


def _trial(line: Line, metric: str) -> tuple[float, ...] | None:
    del metric
    return _numbers(line.get("score"), line.get("label"))


def _mean_score(line: Line, metric: str) -> tuple[float, ...] | None:
    """One number an utterance or query, whose mean is the metric: SF's F1, QbE's share of MTWV at its threshold."""
    del metric
    value = _numbers(line.get("score", line.get("value"))) if "label" not in line else None
    return None if value is None else (*value, 1.0)


SHAPES = (
    Shape("counts of the metric", _of_metric, _pooled),
    Shape("values of the metric", _mean_of_metric, _pooled),
    Shape("counts", _ratio, _pooled),
    Shape("trials", _trial, equal_error_rate),
    Shape("values", _mean_score, _pooled),
)
"""Tried in this order. A further shape is a line here."""


def recognise(lines: Sequence[Line], metric: str) -> Utterances | None:
    """Bring the lines of a `TASK.utterances.jsonl` into order; None if all lines have no known shape in common."""
    if not lines:
        return None
    for shape in SHAPES:
        rows = [shape.read(line, metric) for line in lines]
        if any(row is None for row in rows):
            continue
        named = sorted(zip(_unique(lines), rows, strict=True), key=lambda one: one[0])
        return Utterances(
            tuple(name for name, _ in named), np.array([row for _, row in named], dtype=np.float64), shape
        )
    return None


def _unique(lines: Sequence[Line]) -> list[str]:
    """A name for each line; lines of the same name are numbered in the order of the file."""
    seen: dict[str, int] = {}
    names = []
    for line in lines:
        key = next((str(line[key]) for key in _NAMES if key in line), None)
        if key is None:  # a trial is a pair of files
            key = " ".join(str(value) for value in line.values() if isinstance(value, str))
        seen[key] = seen.get(key, 0) + 1
        names.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return names
