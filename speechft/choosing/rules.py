"""How one candidate is chosen from the front: its knee, or the best that loses at most so much.

Both rules are pure functions of scores turned so that more is better. Where several candidates are equally good the
first one is taken: candidates come by rising α, so it is the one nearest to the pre-trained model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from speechft.choosing.pareto import Point, front

RULES = {
    "knee": "on the Pareto front, farthest beyond the plane through its ends (Das 1999)",
    "budget": "the best of those that lose at most so much, relative to the pre-trained model, in anything",
}

_EQUAL = 1e-9


@dataclass(frozen=True)
class Pick:
    """A chosen candidate.

    Attributes:
        index: of the candidate.
        why: what made it the one, for people.
    """

    index: int
    why: str


def scaled(points: Sequence[Point]) -> list[list[float]]:
    """Each score from 0 (worst of these points) to 1 (best); scores that are the same everywhere are left out."""
    columns = [
        [(value - min(column)) / (max(column) - min(column)) for value in column]
        for column in zip(*points, strict=True)
        if max(column) > min(column)
    ]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in points]


def knee(points: Sequence[Point], base: int | None = None) -> Pick:
    """The bend of the front: where giving up a little of one score stops buying much of another.

    Every score is scaled to 0 ... 1 over the front. The ideal ends of a trade-off, best in one score and worst in all
    others, then lie on the plane Σ u = 1, and the knee is the point farthest beyond that plane, so the one with the
    largest Σ u. With two scores this is the definition of Das ("On characterizing the knee of the Pareto curve based
    on normal-boundary intersection", Structural Optimization 18, 1999): farthest from the straight line between the
    ends of the front. Adding dominated candidates, or giving a score another unit, changes nothing.

    A front that lies on the plane or behind it has no knee; then the point nearest to the ideal (1, ..., 1) is taken,
    but for the pre-trained model where the front has others: that would be to keep nothing of the fine-tuning for no
    reason but a front of two points, both as far from the ideal.

    Args:
        points: one a candidate, at least one; all finite.
        base: which of them is the pre-trained model.
    """
    indices = front(points)
    rows = scaled([points[index] for index in indices])
    if not rows[0]:
        alone = "nothing is better than it in anything" if len(indices) == 1 else "the front's points are all equal"
        return Pick(indices[0], alone)
    heights = [(sum(row) - 1) / math.sqrt(len(row)) for row in rows]
    best = _first_best(heights)
    if heights[best] > _EQUAL:
        return Pick(indices[best], f"the knee, {heights[best]:.2f} beyond the plane through the ends of the front")
    tuned = [place for place, index in enumerate(indices) if index != base]
    nearest = tuned[_first_best([-math.dist(rows[place], [1.0] * len(rows[place])) for place in tuned])]
    beside = ", but for the pre-trained model" if base in indices else ""
    return Pick(
        indices[nearest], f"the front has no knee; this is its point nearest to the best of every score{beside}"
    )


def reached(points: Sequence[Point], among: Sequence[int], index: int) -> list[float | None]:
    """Where a candidate lies in each score between the worst (0) and the best (1) of some; None where all are equal."""
    found: list[float | None] = []
    for place, column in enumerate(zip(*(points[one] for one in among), strict=True)):
        low, high = min(column), max(column)
        found.append((points[index][place] - low) / (high - low) if high > low else None)
    return found


def losses(point: Point, base: Point) -> list[float]:
    """What is lost in each score relative to the base's: 0.01 is one per cent; below 0 is gained."""
    return [_relative(before - after, before) for after, before in zip(point, base, strict=True)]


def budget(points: Sequence[Point], base: int, lose: float, target: int | None = None) -> Pick:
    """The best candidate under a constraint: no score may lose more than `lose` of the base's.

    Args:
        points: one a candidate.
        base: which of them is the pre-trained model; it always keeps to the budget.
        lose: a share, 0.01 for one per cent. Of an error rate, that much more errors.
        target: the score by which the best is meant; None for the mean of the relative gains in all.

    Returns:
        A point of the front: whatever dominates a point within the budget is itself within it.
    """
    allowed = [index for index in front(points) if max(losses(points[index], points[base])) <= lose + _EQUAL]
    gains = [[-loss for loss in losses(points[index], points[base])] for index in allowed]
    means = [sum(row) / len(row) for row in gains]
    wanted = means if target is None else [points[index][target] for index in allowed]
    top = max(wanted)
    best = [place for place, value in enumerate(wanted) if value == top]
    chosen = allowed[best[_first_best([means[place] for place in best])]]
    what = "on average" if target is None else "in what it was fine-tuned for"
    if chosen == base or points[chosen] == points[base]:
        return Pick(
            chosen, f"nothing within the budget of {100 * lose:g} % is better {what} than the pre-trained model"
        )
    worst = max(losses(points[chosen], points[base]))
    said = f"its worst loss is {100 * worst:.2f} %" if worst > 0 else "it loses nothing"
    return Pick(chosen, f"the best {what} of those that lose at most {100 * lose:g} % in anything; {said}")


def _relative(difference: float, of: float) -> float:
    if difference == 0:
        return 0.0
    return difference / abs(of) if of else math.copysign(math.inf, difference)


def _first_best(values: Sequence[float]) -> int:
    """The place of the largest value; of those equal to it but for rounding, the first."""
    top = max(values)
    return next(place for place, value in enumerate(values) if value >= top - _EQUAL)
