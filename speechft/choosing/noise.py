"""How sure a choice is: scores on bootstrap draws of the dev set, and how often the rule chooses an α on them.

A draw takes as many utterances as there are, with replacement, the same ones for every α. That is the noise of the dev
set alone: another seed of fine-tuning or of the head would add its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from speechft.choosing.objectives import Objective, Scored, turned
from speechft.choosing.pareto import Point

DRAWS = 200
LEAST = 10
"""Of fewer utterances draws say nothing."""
_TRIES = 10
LIKELY = 0.1
"""Share of the draws from which on an α is named as one that would have been chosen as well."""


def redrawn(
    summary: Callable[[Sequence[Any]], Mapping[str, float]], scores: Sequence[Any], metric: str, draws: int = DRAWS
) -> list[float] | None:
    """A metric on draws of a set; None where the set is too small to draw from.

    Of several tasks' utterances a draw may hold none of the metric's own: another one is taken in its place.

    Args:
        summary: a task's: the metrics of a set, from its utterances' scores.
        scores: one an utterance.
        metric: which of them.
        draws: how many; lists of one length are drawn from alike.
    """
    if len(scores) < LEAST:
        return None
    generator = np.random.default_rng(len(scores))
    found: list[float] = []
    for _ in range(_TRIES * draws):
        metrics = summary([scores[place] for place in generator.integers(len(scores), size=len(scores))])
        if metric in metrics:
            found.append(float(metrics[metric]))
        if len(found) == draws:
            return found
    return None


def interval(values: Sequence[float]) -> list[float]:
    """95 %, by percentiles."""
    return [float(end) for end in np.percentile(values, (2.5, 97.5))]


def chosen_shares(
    scored: Sequence[Scored], objectives: Sequence[Objective], choose: Callable[[Sequence[Point]], int]
) -> list[float] | None:
    """For each candidate, the share of the draws in which a rule chooses it; None where there are no draws.

    Args:
        scored: the candidates; a score without draws stays what it is.
        objectives: their scores.
        choose: points, turned so that more is better -> the place of the chosen one.
    """
    drawn = [one.name for one in objectives if all(one.name in each.draws for each in scored)]
    if not drawn:
        return None
    count = len(scored[0].draws[drawn[0]])
    found: Counter[int] = Counter()
    for draw in range(count):
        values = [{**one.scores, **{name: one.draws[name][draw] for name in drawn}} for one in scored]
        found[choose([turned(own, objectives) for own in values])] += 1
    return [found[place] / count for place in range(len(scored))]
