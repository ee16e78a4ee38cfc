"""Differences and their intervals, against draws written out one by one and examples worked by hand."""

import numpy as np
import pytest

from speechft.study.differences import difference, holm, read, shape_of
from speechft.study.pieces import written


def score(numbers, groups, metric="acc", items="same"):
    text = " ".join("/".join(map(str, row)) for row in numbers)
    (share,) = shape_of(metric).estimate(np.array(numbers, dtype=float), np.ones((1, len(numbers))))
    return {
        "metric": metric, "items": items, "numbers": text, "groups": " ".join(map(str, groups)), "value": 100 * share,
    }  # fmt: skip


def correct(values, groups):
    return score([(value, 1) for value in values], groups)


def test_the_mean_is_the_difference_of_the_scores():
    groups = [0, 0, 1, 1]
    base = [correct([1, 0, 0, 0], groups), correct([0, 0, 0, 0], groups)]
    other = [correct([1, 1, 1, 0], groups), correct([1, 0, 0, 0], groups)]
    found = difference(base, other)
    assert found.by_seed == (50.0, 25.0) and found.mean == 37.5
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("metric", ["per", "wer"])
def test_fewer_errors_are_better(metric):
    base = [score([(4, 10), (0, 30)], [0, 1], metric)]
    other = [score([(2, 10), (0, 30)], [0, 1], metric)]
    assert difference(base, other).mean == pytest.approx(5.0)


def test_the_interval_is_that_of_drawing_seeds_and_groups():
    """A plain loop over draws, groups and seeds gives the same interval, to the precision of so many draws."""
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), 5)
    base = [generator.random(60) < 0.4 for _ in range(3)]
    other = [generator.random(60) < 0.4 + 0.1 * seed for seed in range(3)]
    found = difference(
        [correct(one.astype(int), groups) for one in base], [correct(one.astype(int), groups) for one in other],
        draws=20_000,
    )  # fmt: skip
    values = []
    for _ in range(20_000):
        drawn = np.concatenate([np.flatnonzero(groups == one) for one in generator.integers(12, size=12)])
        seeds = generator.integers(3, size=3)
        values.append(100 * np.mean([other[seed][drawn].mean() - base[seed][drawn].mean() for seed in seeds]))
    assert [found.low, found.high] == pytest.approx(list(np.percentile(values, [2.5, 97.5])), abs=0.6)
    assert found.p == pytest.approx(2 * min(np.mean(np.array(values) <= 0), np.mean(np.array(values) >= 0)), abs=0.02)


def test_speakers_are_drawn_whole():
    """Items of one speaker that agree add nothing: twice the items, the same interval."""
    values = [1, 0, 1, 1, 0, 1, 0, 1]
    few = difference([correct([0] * 8, range(8))], [correct(values, range(8))])
    groups = np.repeat(np.arange(8), 10)
    many = difference([correct([0] * 80, groups)], [correct(np.repeat(values, 10), groups)])
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_equal_models_differ_by_nothing():
    same = [correct([1, 0, 1], [0, 1, 2])]
    found = difference(same, same)
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_trials():
    """EER: a model that separates the trials against one that has them the wrong way round."""
    good = score([(0.9, 1), (0.8, 1), (0.2, 0), (0.1, 0)], [0, 0, 0, 0], "eer")
    bad = score([(0.1, 1), (0.2, 1), (0.8, 0), (0.9, 0)], [0, 0, 0, 0], "eer")
    assert difference([bad], [good]).mean == pytest.approx(100.0)


def test_other_items_are_refused():
    with pytest.raises(ValueError, match="same items"):
        difference([score([(1, 1)], [0])], [score([(1, 1)], [0], items="others")])


def test_holm():
    """0.01 · 3, then 0.03 · 2, then the largest, which may not fall below: worked by hand."""
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_numbers_are_written_and_read_again():
    rows = [[3.0, 12.0], [0.0, 9.0], [-0.12345, 1.0]]
    assert written(rows) == "3/12 0/9 -0.12345/1"
    assert np.allclose(read(written(rows)), rows, atol=1e-9)
    close = np.nextafter(np.ones(50, np.float32), np.float32(0)) - np.arange(50, dtype=np.float32) * np.float32(6e-8)
    again = read(written([[float(value), 1.0] for value in close]))[:, 0].astype(np.float32)
    assert np.array_equal(again, close), "cosines that differ by a bit keep their order"


def test_a_score_that_its_items_do_not_give_has_no_interval():
    """As where trials' scores were rounded until they tied: the measured scores stand, nothing is drawn."""
    good = score([(0.9, 1), (0.8, 1), (0.2, 0), (0.1, 0)], [0, 0, 1, 1], "eer")
    tied = {**score([(1, 1), (1, 1), (1, 0), (1, 0)], [0, 0, 1, 1], "eer"), "value": 25.0}
    found = difference([good], [tied])
    assert found.mean == -25.0 and np.isnan([found.low, found.high, found.p]).all()
