"""Speech-FT's features beside those of the baselines, on results written by hand."""

import pytest
from scipy.stats import ttest_1samp

from speechft.study.features import closer, features, t_interval
from speechft.study.results import Study


def study(**rows):
    """`stable_0.5=[(cka, update), ...]`, a pair a seed."""
    models = {}
    for name, seeds in rows.items():
        strategy, _, alpha = name.partition("_")
        models["u", "pr", strategy, float(alpha or 1)] = {
            seed: {"cka": [cka - 0.1, cka + 0.1], "update": update} for seed, (cka, update) in enumerate(seeds)
        }
    return Study(models, {})


def verdicts(found):
    lines = [line.strip("| ").split(" | ") for line in closer(found).splitlines()[2:]]
    return {(line[2].rpartition(" ")[2], line[3].partition(",")[0]): line[4:] for line in lines}


def test_the_interval_is_students():
    values = [0.1, 0.25, 0.19]
    expected = ttest_1samp(values, 0.0).confidence_interval()
    assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert t_interval([0.5]) == (-float("inf"), float("inf"))


def test_the_claim_needs_both_a_smaller_distance_and_a_larger_update():
    found = verdicts(
        study(
            **{
                "stable_0.25": [(0.90, 0.01), (0.91, 0.01), (0.92, 0.01)],
                "stable_0.5": [(0.8, 0.03), (0.81, 0.03), (0.82, 0.03)],
                "stable_1": [(0.1, 0.05), (0.11, 0.05), (0.12, 0.05)],
                "l2": [(0.7, 0.02), (0.71, 0.02), (0.72, 0.02)],
                "lora": [(0.5, 0.02), (0.95, 0.02), (0.9, 0.02)],
            }
        )
    )
    assert found["0.25", "l2"] == ["+0.200: +0.200 to +0.200", "0.50", "closer, at a smaller one"]
    assert found["0.5", "l2"] == ["+0.100: +0.100 to +0.100", "1.50", "**yes**"]
    assert found["1", "l2"] == ["-0.600: -0.600 to -0.600", "2.50", "no, further away"]
    assert found["0.25", "lora"][2] == "not clear"


def test_one_seed_decides_nothing_and_none_is_left_out():
    found = verdicts(study(**{"stable_0.25": [(0.9, 0.02)], "l2": [(0.5, 0.01), (0.5, 0.01)]}))
    assert found == {("0.25", "l2"): ["+0.400: one seed", "2.00", "not clear"]}
    assert closer(study(stable_1=[(0.9, 0.1)])) == "Not measured yet.\n"
    assert "| PR | u | l2, α = 1 | 0.5000 ± 0.0000 | 1.00 ± 0.00 |" in features(study(l2=[(0.5, 0.01), (0.5, 0.01)]))
