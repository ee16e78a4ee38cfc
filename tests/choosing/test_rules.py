"""The front and the rules against their definitions, spelled out in numpy."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speechft.choosing.pareto import dominates, front
from speechft.choosing.rules import budget, knee, losses, scaled

VALUES = st.integers(-20, 20).map(float) | st.floats(-100, 100, width=16)


def clouds(least=1, columns=(1, 4), values=VALUES):
    """Lists of points of one length, ties and repeated points included."""
    return st.integers(*columns).flatmap(
        lambda width: st.lists(st.tuples(*[values] * width), min_size=least, max_size=9)
    )


def naive_front(points):
    """By arrays: a point is out if some point is nowhere worse and somewhere better."""
    array = np.array(points)
    nowhere_worse = (array[:, None] >= array[None]).all(-1)
    somewhere_better = (array[:, None] > array[None]).any(-1)
    return np.flatnonzero(~(nowhere_worse & somewhere_better).any(0)).tolist()


@settings(max_examples=80, deadline=None)
@given(clouds())
def test_the_front_is_its_definition(points):
    found = front(points)
    assert found == naive_front(points) and found
    for index in found:
        assert not any(dominates(other, points[index]) for other in points)
    for index in set(range(len(points))) - set(found):  # and what is out is beaten by something on the front
        assert any(dominates(points[other], points[index]) for other in found)


@settings(max_examples=50, deadline=None)
@given(clouds(), st.randoms())
def test_the_front_does_not_depend_on_the_order(points, chance):
    order = list(range(len(points)))
    chance.shuffle(order)
    assert sorted(order[place] for place in front([points[place] for place in order])) == front(points)


def test_equal_points_are_on_the_front_together():
    assert front([(1.0, 2.0), (1.0, 2.0), (0.0, 2.0)]) == [0, 1]
    assert front([(3.0,)]) == [0] and front([]) == []
    with pytest.raises(ValueError, match="not a number"):
        front([(1.0, math.nan)])


@settings(max_examples=80, deadline=None)
@given(clouds(columns=(2, 2), values=st.floats(-100, 100, width=16)))
def test_the_knee_is_farthest_from_the_line_between_the_ends(points):
    """Two scores: Das's definition, by the cross product in scaled coordinates."""
    chosen = knee(points)
    ends = front(points)
    assert chosen.index in ends
    array = np.array(points, dtype=np.float64)[ends]
    if len(np.unique(array, axis=0)) == 1:
        assert chosen.index == ends[0]
        return
    unit = (array - array.min(0)) / (array.max(0) - array.min(0))
    first, last = unit[unit[:, 0].argmin()], unit[unit[:, 0].argmax()]
    line = last - first
    # positive on the side of the ideal point (1, 1)
    distance = (line[1] * -(unit[:, 0] - first[0]) + line[0] * (unit[:, 1] - first[1])) / np.hypot(*line)
    ours = distance[ends.index(chosen.index)]
    if distance.max() > 1e-6:
        assert ours == pytest.approx(distance.max(), abs=1e-8) and "the knee" in chosen.why
    elif distance.max() < 1e-10:
        gaps = np.linalg.norm(1 - unit, axis=1)
        assert gaps[ends.index(chosen.index)] == pytest.approx(gaps.min(), abs=1e-8) and "no knee" in chosen.why


@settings(max_examples=50, deadline=None)
@given(clouds(columns=(2, 3), values=st.integers(-50, 50).map(float)), st.integers(1, 5), st.integers(-7, 7))
def test_the_knee_does_not_depend_on_units_or_on_dominated_candidates(points, factor, shift):
    chosen = knee(points).index
    other_unit = [(factor * point[0] + shift, *point[1:]) for point in points]
    worse = tuple(min(column) - 1 for column in zip(*points, strict=True))
    assert knee([*points, worse]).index == chosen
    ties = {tuple(point) for point in points}
    assume(len(ties) == len(points))
    row = dict(zip(front(points), scaled([points[i] for i in front(points)]), strict=True))
    again = knee(other_unit).index  # equally high knees may change places by rounding
    assert again == chosen or sum(row[again]) == pytest.approx(sum(row[chosen]), abs=1e-6)


def test_a_bend_and_a_straight_front():
    bend = [(1.0, 0.0), (0.95, 0.8), (0.5, 0.9), (0.0, 1.0)]
    assert knee(bend).index == 1
    straight = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    assert knee(straight).index == 1 and "no knee" in knee(straight).why
    assert knee([(1.0, 1.0), (0.0, 0.5)]).index == 0  # best in everything
    assert knee([(2.0, 3.0)]).index == 0
    assert knee([(2.0, 3.0), (2.0, 3.0)]).index == 0  # of equal ones, the first
    ends = [(1.0, 0.0), (0.0, 1.0)]  # of two, none is nearer; the pre-trained model is not taken for nothing
    assert knee(ends).index == 0 and knee(ends, 0).index == 1 and "but for the pre-trained" in knee(ends, 0).why
    assert knee([(1.0, 1.0), (0.0, 0.5)], 0).index == 0  # best in everything, it is
    assert knee(bend, 0).index == 1 and knee(bend[1:], 0).index == 1
    three = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.4, 0.5, 0.4)]
    assert knee(three).index == 3


@settings(max_examples=80, deadline=None)
@given(clouds(columns=(1, 3)), st.data(), st.floats(0, 1), st.booleans())
def test_the_budget_is_its_definition(points, data, lose, aimed):
    base = data.draw(st.integers(0, len(points) - 1))
    target = data.draw(st.integers(0, len(points[0]) - 1)) if aimed else None
    pick = budget(points, base, lose, target)
    assert pick.index in front(points)

    def lost(point):
        """Per score, in per cent of the base's, by cases."""
        return [0.0 if now == then else (then - now) / abs(then) if then else math.copysign(math.inf, then - now)
                for now, then in zip(point, points[base], strict=True)]  # fmt: skip

    within = [point for point in points if all(one <= lose + 1e-9 for one in lost(point))]
    assert points[pick.index] in within
    if target is not None:
        assert points[pick.index][target] == max(point[target] for point in within)
    else:
        with np.errstate(invalid="ignore"):
            means = [-np.mean(lost(point)) for point in within]
        ours = -np.mean(lost(points[pick.index]))
        assert ours == max(means) or ours == pytest.approx(max(means), abs=1e-8)


def test_the_budget_in_error_rates():
    """PER 10 -> 10.05 loses 0.5 %; accuracy 80 -> 79 loses 1.25 %."""
    points = [(-10.0, 80.0), (-9.0, 79.5), (-8.0, 79.0), (-10.05, 85.0)]
    assert losses(points[2], points[0]) == [-0.2, 0.0125]
    assert losses(points[3], points[0])[0] == pytest.approx(0.005)
    assert budget(points, 0, 0.01, target=0).index == 1
    assert budget(points, 0, 0.02, target=0).index == 2
    assert budget(points, 0, 0.01, target=1).index == 3
    assert budget(points, 0, 0.004, target=1).index == 0
    none = budget([(-10.0, 80.0), (-9.0, 70.0)], 0, 0.01, target=0)
    assert none.index == 0 and "nothing within the budget of 1 %" in none.why
    assert budget([(5.0,)], 0, 0.0).index == 0


def test_a_base_of_zero_may_not_lose_anything():
    assert losses((-1.0, 1.0), (0.0, 0.0)) == [math.inf, -math.inf]
    assert budget([(0.0, 1.0), (-1.0, 9.0)], 0, 0.5, target=1).index == 0
