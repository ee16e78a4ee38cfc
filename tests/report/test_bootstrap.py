"""Intervals against scipy's bootstrap."""

import numpy as np
import pytest
from scipy import stats

from speechft.report.bootstrap import interval, replicates
from speechft.report.shapes import recognise


def _utterances(errors, lengths):
    lines = [
        {"file": f"{n:04d}", "errors": int(a), "length": int(b)}
        for n, (a, b) in enumerate(zip(errors, lengths, strict=True))
    ]
    return recognise(lines, "wer")


@pytest.fixture(scope="module")
def counts():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 40, size=400)
    first = generator.binomial(lengths, 0.2)
    second = np.minimum(lengths, first - generator.binomial(first, 0.15))
    return first, second, lengths


def _scipy(counts, statistic, *samples):
    found = stats.bootstrap(
        samples, statistic, paired=True, vectorized=False, method="percentile", n_resamples=4000, random_state=0
    )
    return found.confidence_interval, found.bootstrap_distribution


def test_an_error_rate(counts):
    first, _, lengths = counts
    ours = replicates([[_utterances(first, lengths)]], draws=4000)[0]
    ends, drawn = _scipy(counts, lambda a, n: 100 * a.sum() / n.sum(), first, lengths)
    assert ours.std() == pytest.approx(drawn.std(), rel=0.06)
    assert interval(ours) == pytest.approx(tuple(ends), abs=0.1 * drawn.std() * 2)


def test_a_paired_difference(counts):
    first, second, lengths = counts
    base, other = replicates([[_utterances(first, lengths)], [_utterances(second, lengths)]], draws=4000)
    ends, drawn = _scipy(counts, lambda a, b, n: 100 * (b.sum() - a.sum()) / n.sum(), first, second, lengths)
    assert interval(other - base) == pytest.approx(tuple(ends), abs=0.2 * drawn.std())
    assert (other - base).std() < 0.5 * np.hypot(base.std(), other.std())  # pairing is what makes it narrow


def test_draws_are_whole_sets_and_repeat_with_their_seed(counts):
    first, _, lengths = counts
    both = [[_utterances(first, lengths)]]
    assert (replicates(both, 300, seed=4) == replicates(both, 300, seed=4)).all()
    assert not (replicates(both, 300, seed=4) == replicates(both, 300, seed=5)).all()
    whole = _utterances(np.ones(7), np.ones(7))
    assert (replicates([[whole]], 200) == 100).all()
    # seeds are averaged draw by draw: the same utterances are drawn for each
    doubled = replicates([[both[0][0], both[0][0]]], 300, seed=4)
    assert np.allclose(doubled, replicates(both, 300, seed=4))


def test_undefined_draws():
    assert interval(np.full(100, np.nan)) is None
    assert interval(np.array([1.0] * 95 + [np.nan] * 5)) == (1.0, 1.0)
