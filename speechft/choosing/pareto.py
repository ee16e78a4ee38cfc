"""Pareto fronts: which candidates no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]
"""One candidate's scores, turned so that more is better in each."""


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in everything and better in something."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(
        a > b for a, b in zip(one, other, strict=True)
    )  # fmt: skip


def front(points: Sequence[Point]) -> list[int]:
    """The candidates that none of the others dominates, in their order; equal candidates are in it together.

    Args:
        points: one a candidate, all of the same length.

    Returns:
        Indices into `points`; never empty unless `points` is.

    Raises:
        ValueError: a score that is no number (infinite ones are).
    """
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("a score is not a number")
    return [
        index for index, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]  # fmt: skip
