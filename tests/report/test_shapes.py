"""Each shape of per-utterance results gives its metric again, from weights as from repeated lines."""

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from speechft.report.shapes import equal_error_rate, recognise


def eer_of_s3prl(labels, scores):
    """s3prl/downstream/sv_voxceleb1/utils.py computes it so."""
    alarms, hits, _ = roc_curve(labels, scores)
    return brentq(lambda x: 1.0 - x - interp1d(alarms, hits)(x), 0.0, 1.0)


@pytest.mark.parametrize("decimals", [6, 1], ids=["all different", "many equal scores"])
def test_the_equal_error_rate_of_drawn_trials_is_s3prls(decimals):
    generator = np.random.default_rng(1)
    labels = (generator.random(300) < 0.3).astype(float)
    scores = np.round(generator.standard_normal(300) + labels, decimals)
    numbers = np.stack([scores, labels], axis=1)
    weights = np.stack([np.bincount(generator.integers(300, size=300), minlength=300) for _ in range(20)]).astype(float)
    ours = equal_error_rate(numbers, np.vstack([np.ones(300), weights]))
    assert ours[0] == pytest.approx(eer_of_s3prl(labels, scores), abs=1e-9)
    for weight, eer in zip(weights, ours[1:], strict=True):
        drawn = np.repeat(np.arange(300), weight.astype(int))
        assert eer == pytest.approx(eer_of_s3prl(labels[drawn], scores[drawn]), abs=1e-9)


def test_the_equal_error_rate_by_hand():
    # accepted in this order: same, other, same, other; after two of them one half of each kind is accepted
    trials = np.array([[0.9, 1], [0.8, 0], [0.7, 1], [0.6, 0]])
    assert equal_error_rate(trials, np.ones((1, 4)))[0] == pytest.approx(0.5)
    perfect = np.array([[0.9, 1], [0.8, 1], [0.1, 0]])
    assert equal_error_rate(perfect, np.ones((1, 3)))[0] == 0.0
    assert np.isnan(recognise([{"trial": "a", "score": 1, "label": 1}], "eer").score()[0])  # no trial of the other kind


def test_shapes_are_recognised_and_sorted_by_name():
    counts = recognise([{"file": "b", "errors": 3, "length": 4}, {"file": "a", "errors": 0, "length": 8}], "wer")
    assert counts.names == ("a", "b") and counts.numbers.tolist() == [[0, 8], [3, 4]]
    assert counts.score()[0] == 0.25 and counts.score(np.array([[0.0, 2.0]]))[0] == 0.75
    hits = recognise([{"file": "a", "correct": 1}, {"file": "b", "correct": 0}, {"file": "c", "correct": True}], "acc")
    assert hits.score()[0] == pytest.approx(2 / 3)
    assert recognise([{"file": "a", "score": 0.5}, {"file": "b", "score": 1.0}], "f1").score()[0] == 0.75


def test_several_metrics_in_one_line():
    lines = [
        {"file": "a", "score": 1.0, "value_errors": 1, "value_length": 10},
        {"file": "b", "score": 0.5, "value_errors": 0, "value_length": 30},
    ]
    assert recognise(lines, "slot_type_f1").score()[0] == 0.75
    assert recognise(lines, "slot_value_cer").score()[0] == 0.025
    named = [{"file": "a", "slot_type_f1": 1.0, "cer_errors": 1, "cer_length": 4, "errors": 9, "length": 9}]
    assert recognise(named, "slot_value_cer").score()[0] == 0.25 and recognise(named, "slot_type_f1").score()[0] == 1.0
    queries = [{"file": "q1", "value": 0.25, "twv": 0.5}, {"file": "q2", "value": -0.05, "twv": -0.1}]
    assert recognise(queries, "mtwv").score()[0] == pytest.approx(0.1)


def test_weights_make_folds_of_different_size_count_alike():
    lines = [{"file": "fold1/a", "correct": 1, "weight": 5.0}]
    lines += [{"file": f"fold2/{n}", "correct": 0, "weight": 5 / 9} for n in range(9)]
    assert recognise(lines, "acc").score()[0] == pytest.approx(0.5)


def test_what_is_not_known_is_none_and_names_are_made_unique():
    assert recognise([], "acc") is None
    assert recognise([{"file": "a", "hypothesis": "x"}], "acc") is None
    assert recognise([{"file": "a", "correct": 1}, {"file": "b"}], "acc") is None
    assert recognise([{"file": "a", "errors": 1, "length": "many"}], "wer") is None
    assert recognise([{"correct": 1, "file": "a"}, {"correct": 0, "file": "a"}], "acc").names == ("a", "a#2")
    pair = recognise([{"enrol": "x.wav", "test": "y.wav", "score": 0.1, "label": 0}], "eer")
    assert pair.names == ("x.wav y.wav",)
