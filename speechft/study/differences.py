"""Differences between models with intervals and p-values: draws over seeds and over groups of test items, paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechft.report.shapes import SHAPES, Shape

DRAWS = 4000
_TOLERANCE = 0.2
"""Points by which the items' numbers may miss the score that was measured: results of the first months have trials'
scores rounded to four digits, which makes ties of cosines near 1."""
_SHAPES = {"per": "counts", "wer": "counts", "acc": "counts", "eer": "trials"}


@dataclass(frozen=True)
class Difference:
    """`other - base` in points, positive where `other` is better.

    Attributes:
        mean: over seeds.
        low, high: 95 % percentile interval; NaN where the items' numbers do not give the scores.
        p: two-sided: twice the share of draws on the wrong side of 0; NaN likewise.
        by_seed: of each seed.
    """

    mean: float
    low: float
    high: float
    p: float
    by_seed: tuple[float, ...]


def shape_of(metric: str) -> Shape:
    """How the numbers of a probe's test items become its score."""
    return next(shape for shape in SHAPES if shape.name == _SHAPES[metric])


def read(numbers: str) -> np.ndarray:
    """`[items, k]` float64 from the text that `pieces.written` makes."""
    return np.array([item.split("/") for item in numbers.split()], dtype=np.float64)


def difference(
    base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Compare two models over seeds.

    Each draw takes as many seeds as there are and as many groups of test items (speakers, or pieces of one recording)
    as there are, both with replacement; both models and all seeds get the same groups, for they are scored on the same
    items. So the interval speaks of other draws of the training parts and heads, and of other speakers.

    Args:
        base, other: a probe's scores of each seed, as `pieces` writes them: `value`, `numbers`, `groups`, `items`,
            `metric`.
        draws, seed: of the bootstrap.

    Raises:
        ValueError: the models were not scored on the same items.
    """
    pairs = list(zip(base, other, strict=True))
    if any(one["items"] != two["items"] or one["items"] is None for one, two in pairs):
        raise ValueError("the models were not scored on the same items")
    shape = shape_of(str(pairs[0][0]["metric"]))
    sign = -1.0 if str(pairs[0][0]["metric"]) in ("per", "wer", "eer") else 1.0
    generator = np.random.default_rng(seed)
    groups = np.array(str(pairs[0][0]["groups"]).split(), dtype=np.int64)
    if any(one["groups"] != pairs[0][0]["groups"] for one, _ in pairs):
        raise ValueError("the seeds were not scored on the same items")
    count = int(groups.max()) + 1
    drawn = generator.integers(count, size=(draws, count))
    weights = np.apply_along_axis(np.bincount, 1, drawn, minlength=count)[:, groups].astype(np.float64)
    chosen = generator.integers(len(pairs), size=(draws, len(pairs)))
    values = np.zeros((draws, len(pairs)))
    whole = tuple(sign * (float(two["value"]) - float(one["value"])) for one, two in pairs)
    mean = float(np.mean(whole))
    if not all(_agrees(shape, score) for pair in pairs for score in pair):
        return Difference(mean, math.nan, math.nan, math.nan, whole)
    for place, (one, two) in enumerate(pairs):
        numbers = [read(str(each["numbers"])) for each in (one, two)]
        values[:, place] = 100 * sign * (shape.estimate(numbers[1], weights) - shape.estimate(numbers[0], weights))
    means = np.take_along_axis(values, chosen, axis=1).mean(axis=1)
    means = means[np.isfinite(means)]
    low, high = np.percentile(means, [2.5, 97.5])
    tail = min((means <= 0).mean(), (means >= 0).mean())
    return Difference(mean, float(low), float(high), float(min(1.0, 2 * max(tail, 1 / len(means)))), whole)


def _agrees(shape: Shape, score: Mapping[str, Any]) -> bool:
    """Whether a score follows from its items' numbers."""
    numbers = read(str(score["numbers"]))
    (found,) = shape.estimate(numbers, np.ones((1, len(numbers))))
    return abs(100 * found - float(score["value"])) <= _TOLERANCE


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = np.argsort(values)
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = highest
    return corrected
