"""Bootstrap over test utterances: the same draws for all models that were scored on the same utterances."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from speechft.report.collect import Score
from speechft.report.shapes import Utterances

DRAWS = 2000
_NUMBERS_AT_ONCE = 4_000_000  # of weights in memory: 16 MB


def replicates(models: Sequence[Sequence[Utterances]], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """The metric of every model on bootstrap draws of the test utterances.

    A draw takes as many utterances as there are, with replacement, the same ones for all models and all their seeds;
    a model's value is the mean over its seeds. So the spread of a row speaks of the test set alone, and rows can be
    subtracted draw by draw (paired bootstrap).

    Args:
        models: each one's utterances, once a seed; all of the same utterances.
        draws: how many.
        seed: of the draws; the same seed and number of utterances give the same draws.

    Returns:
        `[models, draws]` in per cent; NaN where a draw leaves the metric undefined.

    Raises:
        ValueError: the models were not scored on the same utterances.
    """
    names = models[0][0].names
    if any(one.names != names for model in models for one in model):
        raise ValueError("the models were not scored on the same utterances")
    generator = np.random.default_rng([seed, zlib.crc32(str(len(names)).encode())])
    at_once = max(1, _NUMBERS_AT_ONCE // len(names))
    parts = []
    for start in range(0, draws, at_once):
        chosen = generator.integers(len(names), size=(min(at_once, draws - start), len(names)))
        weights = np.stack([np.bincount(one, minlength=len(names)) for one in chosen]).astype(np.float64)
        parts.append([np.mean([one.score(weights) for one in model], axis=0) for model in models])
    return 100 * np.concatenate(parts, axis=1)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of `[draws]` values; None where a draw left the metric undefined too often to tell."""
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * len(values) or not len(defined):
        return None
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def paired_interval(
    base: Sequence[Score], other: Sequence[Score], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """The difference `other - base` in points of the metric, with a 95 % interval by paired bootstrap.

    Args:
        base, other: scores of the same task, one per seed.

    Returns:
        Mean difference, lower and upper end.

    Raises:
        ValueError: not scored on the same utterances, or results of single utterances are missing.
    """
    models = []
    for scores in (base, other):
        found = [score.utterances for score in scores if score.utterances is not None]
        if len(found) < len(scores) or not found:
            raise ValueError("results of single utterances are missing")
        models.append(found)
    values = replicates(models, draws, seed)
    ends = interval(values[1] - values[0])
    low, high = ends if ends is not None else (float("nan"), float("nan"))
    means = [100 * float(np.mean([one.score()[0] for one in model])) for model in models]
    return means[1] - means[0], low, high
