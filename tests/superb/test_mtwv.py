"""MTWV by hand, and against the definition, threshold by threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny_pooled import TIMES, WORDS, make_quesst

from speechft.errors import SpeechFTError
from speechft.superb.mtwv import Costs, Truth, maximum, read_costs, read_detections, read_truth

FAIR = Costs(target=0.5, false_alarm=1.0, miss=1.0)  # beta 1


def test_beta_is_that_of_the_scoring_script():
    assert Costs().beta == pytest.approx(12.49)
    # the script hands its tool C_miss P / (C_miss P + C_fa (1 - P)), cut off by bc: the README's 0.0741289
    assert math.floor(1e7 / (1 + Costs().beta)) == 741289


def test_by_hand():
    """Query a is in 2 of 4 documents, b in 1. At 0.7, a: one hit of two, none of two wrong; b: hit, 1 of 3 wrong."""
    truth = Truth(frozenset("wxyz"), {"a": frozenset("wx"), "b": frozenset("y")})
    scores = {
        "a": {"w": 0.9, "x": 0.1, "y": 0.2, "z": 0.0},
        "b": {"w": 0.1, "x": 0.8, "y": 0.7, "z": 0.0},
    }
    value = maximum(scores, truth, FAIR)
    assert value.threshold == 0.7
    assert value.queries == pytest.approx({"a": 1 / 2, "b": 1 - 1 / 3})
    assert value.mtwv == pytest.approx((1 / 2 + 2 / 3) / 2)
    # false alarms that cost more: better only a's best document, (1/2 + 0) / 2
    strict = maximum(scores, truth, Costs(target=0.2, false_alarm=1, miss=1))
    assert (strict.mtwv, strict.threshold) == (pytest.approx(1 / 4), 0.9)


def test_equal_scores_are_accepted_together():
    truth = Truth(frozenset("wx"), {"a": frozenset("w")})
    assert maximum({"a": {"w": 1.0, "x": 1.0}}, truth, FAIR) == maximum({}, truth, FAIR)
    assert maximum({"a": {"w": 1.0, "x": 0.9}}, truth, FAIR).mtwv == 1


def test_pairs_that_were_not_searched():
    """Of two queries one was searched, perfectly: half of the score. Accepting the rest too would cost more."""
    truth = Truth(frozenset("wxyz"), {"a": frozenset("w"), "b": frozenset("w")})
    searched = {"a": {"w": 3.0, "x": -1.0}, "unknown": {"w": 9.0}}
    value = maximum(searched, truth, FAIR)
    assert value.mtwv == pytest.approx(0.5) and value.queries == pytest.approx({"a": 1, "b": 0})
    own = truth.within(["a", "unknown"], ["w", "x"])
    assert own == Truth(frozenset("wx"), {"a": frozenset("w")}) and maximum(searched, own, FAIR).mtwv == 1
    with pytest.raises(SpeechFTError, match="no query"):
        maximum(searched, truth.within(["a"], ["x"]), FAIR)


def test_nothing_found_is_zero():
    truth = Truth(frozenset("wxy"), {"a": frozenset("w")})
    value = maximum({"a": {"w": 0.0, "x": 1.0, "y": 2.0}}, truth, Costs())
    assert (value.mtwv, value.threshold, value.queries) == (0.0, math.inf, {"a": 0.0})


@pytest.mark.parametrize("seed", range(20))
def test_against_the_definition(seed):
    generator = np.random.default_rng(seed)
    queries, documents = [f"q{n}" for n in range(5)], [f"d{n}" for n in range(7)]
    targets = {
        query: frozenset(document for document in documents if generator.random() < 0.4) or frozenset(documents[:1])
        for query in queries
    }
    truth, costs = Truth(frozenset(documents), targets), Costs(float(generator.uniform(0.1, 0.6)), 1.0, 2.0)
    scores = {  # few different values, so that many are equal; some pairs are not searched, one lies below the default
        query: {document: float(generator.integers(-12, 4)) for document in documents if generator.random() < 0.8}
        for query in queries
    }

    def at(threshold: float) -> float:
        values = []
        for query, found in targets.items():
            accepted = {d for d in documents if scores[query].get(d, -10.0) >= threshold}
            miss = len(found - accepted) / len(found)
            others = set(documents) - found
            wrong = len(accepted - found) / len(others) if others else 0.0
            values.append(1 - miss - costs.beta * wrong)
        return sum(values) / len(values)

    best = max(at(threshold) for threshold in [*range(-13, 5), math.inf])
    value = maximum(scores, truth, costs)
    assert value.mtwv == pytest.approx(best) == pytest.approx(at(value.threshold))
    assert sum(value.queries.values()) / len(queries) == pytest.approx(value.mtwv)


def test_reading_the_corpus(tmp_path):
    make_quesst(tmp_path)
    scoring = tmp_path / "scoring"
    truth = read_truth(scoring / "groundtruth_quesst14_dev")
    assert truth.documents == set(TIMES)
    assert truth.targets == {  # not quesst14_never, which is nowhere
        f"quesst14_dev_{word + 1:04d}": {name for name, words in TIMES.items() if word in words}
        for word in range(len(WORDS))
    }
    assert read_costs(scoring) == Costs(0.2, 1.0, 2.0) and read_costs(tmp_path) == Costs()
    (tmp_path / "x.stdlist.xml").write_text("<stdlist><detected_termlist")
    with pytest.raises(SpeechFTError, match="cannot be read"):
        read_detections(tmp_path / "x.stdlist.xml")
    (scoring / "groundtruth_quesst14_dev" / "second.rttm").write_text("")
    with pytest.raises(SpeechFTError, match=r"has 2 files \*\.rttm"):
        read_truth(scoring / "groundtruth_quesst14_dev")


def test_of_equally_good_thresholds_the_highest_is_taken():
    """At each further threshold a hit (one of 5) and a false alarm (one of 7) cancel out, but for rounding."""
    hits, others = [f"hit{n}" for n in range(5)], [f"other{n}" for n in range(7)]
    truth = Truth(frozenset(hits + others), {"a": frozenset(hits)})
    scores = {**{name: 7.0 - n for n, name in enumerate(hits)}, **{name: 6.0 - n for n, name in enumerate(others)}}
    value = maximum({"a": scores}, truth, Costs(target=5 / 12, false_alarm=1, miss=1))
    assert (value.mtwv, value.threshold) == (pytest.approx(1 / 5), 7.0)
