"""The schedule and the freeze, against numbers worked out by hand from the paper's recipe."""

import pytest

from speechft.errors import UsageError
from speechft.strategies.base import FULL_PHASE, HEAD_PHASE
from speechft.strategies.build import build_strategy
from speechft.train.schedule import Schedule

# 100 steps, peak 1: warm-up over 10, held until step 50, then to 0 over 50. The step, the rate.
BY_HAND = [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (49, 1.0), (50, 1.0), (51, 0.98), (75, 0.5), (98, 0.04), (99, 0.02)]


@pytest.mark.parametrize(("step", "rate"), BY_HAND)
def test_rates_by_hand(step, rate):
    assert Schedule(100).factor(step) == pytest.approx(rate)


def test_the_first_update_of_the_upstream_is_at_the_peak():
    for total in (20, 100, 50_000):
        stable = build_strategy({"name": "stable", "freeze_fraction": 0.1, "frozen_parts": ["cnn"]})
        first = next(step for step in range(total) if stable.phase(step, total) == FULL_PHASE)
        assert first == total // 10
        assert Schedule(total).factor(first) == 1.0


def test_no_warmup_and_no_decay():
    assert Schedule(10, warmup=0.0, hold=1.0).factor(0) == 1.0
    assert Schedule(10, warmup=0.0, hold=1.0).factor(9) == 1.0


@pytest.mark.parametrize("bad", [{"total": 0}, {"total": 5, "warmup": 0.6}, {"total": 5, "hold": 1.5}])
def test_impossible_schedules_are_refused(bad):
    with pytest.raises(UsageError):
        Schedule(**bad)


PARTS = ["cnn", "projection", "position", "layers.0", "layers.1", "layers.10"]


def test_stable_trains_the_head_first_and_never_the_cnn():
    stable = build_strategy({"name": "stable", "freeze_fraction": 0.1, "frozen_parts": ["cnn"]})
    for step, phase in ((0, HEAD_PHASE), (9, HEAD_PHASE), (10, FULL_PHASE), (99, FULL_PHASE)):
        assert stable.phase(step, 100) == phase
    assert stable.trainable_parts(PARTS, 9, 100) == set()
    assert stable.trainable_parts(PARTS, 10, 100) == set(PARTS) - {"cnn"}


def test_regular_trains_everything_from_the_first_step():
    regular = build_strategy({"name": "regular", "freeze_fraction": 0.0, "frozen_parts": []})
    assert regular.trainable_parts(PARTS, 0, 100) == set(PARTS)


def test_prefixes_freeze_whole_groups_and_nothing_more():
    own = build_strategy({"name": "own", "frozen_parts": ["layers.1"]})
    assert own.trainable_parts(PARTS, 0, 10) == set(PARTS) - {"layers.1"}
    everything = build_strategy({"name": "own", "frozen_parts": ["layers"]})
    assert everything.trainable_parts(PARTS, 0, 10) == {"cnn", "projection", "position"}


def test_mistakes_are_explained():
    with pytest.raises(UsageError, match="no part 'layer'; its parts: cnn"):
        build_strategy({"name": "own", "frozen_parts": ["layer"]}).trainable_parts(PARTS, 0, 10)
    with pytest.raises(UsageError, match=r"freeze_fraction is 1.5"):
        build_strategy({"name": "own", "freeze_fraction": 1.5})
    with pytest.raises(UsageError, match=r"strategy: .*freeze"):
        build_strategy({"name": "own", "freeze": 0.1})
