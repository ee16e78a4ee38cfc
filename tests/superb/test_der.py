"""Diarization error rate against its definition worked by hand, and turns against s3prl's make_rttm.py."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest

from speechft.errors import SpeechFTError
from speechft.superb import der
from speechft.superb.der import Errors, best_errors, diarization_errors, error_rate, read_rttm, turns_of


def same(errors: Errors, scored: float, missed: float, false_alarm: float, confusion: float) -> None:
    found = (errors.scored, errors.missed, errors.false_alarm, errors.confusion)
    assert found == pytest.approx((scored, missed, false_alarm, confusion), abs=1e-9)
    assert errors.total == pytest.approx(missed + false_alarm + confusion)


def test_by_hand():
    reference = [(0, 10, "a"), (8, 15, "b")]
    same(diarization_errors(reference, [(0, 10, "x"), (8, 15, "y")]), 17, 0, 0, 0)
    same(diarization_errors(reference, []), 17, 17, 0, 0)
    same(diarization_errors([], [(1, 3, "x")]), 0, 0, 2, 0)
    same(diarization_errors([], []), 0, 0, 0, 0)
    # one speaker for all: x is a (8..10 both speak, one is missed), from 10 on it is the wrong one
    same(diarization_errors(reference, [(0, 15, "x")]), 17, 2, 0, 5)
    # 2 s late, 1 s over the end; in 10..11 the second one is found beside b
    same(diarization_errors(reference, [(2, 11, "x"), (8, 16, "y")]), 17, 2, 2, 0)
    # halves swapped: 5 s of a's 8 are right, the rest is confused
    same(diarization_errors([(0, 8, "a")], [(0, 3, "x"), (3, 8, "y")]), 8, 0, 0, 3)
    # greedy would pair a with x (5 s) and leave b to y (0 s); the best is a with y (4 s) and b with x (4 s)
    reference = [(0, 9, "a"), (9, 13, "b")]
    same(diarization_errors(reference, [(0, 5, "x"), (9, 13, "x"), (5, 9, "y")]), 13, 0, 0, 5)
    # two found where one speaks: a false alarm, whichever it is
    same(diarization_errors([(0, 4, "a")], [(0, 4, "x"), (1, 3, "y")]), 4, 0, 2, 0)
    # two speak, two others are found, of whom one is right
    same(diarization_errors([(0, 4, "a"), (2, 4, "b")], [(0, 4, "x"), (5, 6, "y"), (2, 4, "z")]), 6, 0, 1, 0)


def test_turns_of_a_speaker_that_touch_or_overlap_are_one():
    once = diarization_errors([(0, 4, "a")], [(1, 5, "x")])
    assert diarization_errors([(0, 3, "a"), (2, 4, "a")], [(1, 2, "x"), (2, 5, "x"), (3, 4, "x")]) == once
    same(once, 4, 1, 1, 0)


def frame_errors(reference, hypothesis, step=0.01):
    """The same by counting: hundredths of a second, every pairing of speakers tried."""
    from itertools import permutations

    end = round(max(turn[1] for turn in [*reference, *hypothesis]) / step)

    def frames(turns, count):
        names = list(dict.fromkeys(turn[2] for turn in turns))
        active = np.zeros((end, count), bool)
        for begin, stop, name in turns:
            active[round(begin / step) : round(stop / step), names.index(name)] = True
        return active

    count = max(len({turn[2] for turn in turns}) for turns in (reference, hypothesis))
    truth, guess = frames(reference, count), frames(hypothesis, count)
    n_ref, n_sys = truth.sum(1), guess.sum(1)
    right = max((truth & guess[:, list(order)]).sum() for order in permutations(range(count)))
    confusion = np.minimum(n_ref, n_sys).sum() - right
    counts = (n_ref.sum(), np.maximum(n_ref - n_sys, 0).sum(), np.maximum(n_sys - n_ref, 0).sum(), confusion)
    return tuple(float(number * step) for number in counts)


@pytest.mark.parametrize("seed", range(20))
def test_by_counting(seed):
    generator = np.random.default_rng(seed)

    def turns(speakers):
        found = []
        for _ in range(generator.integers(1, 12)):
            begin = generator.integers(0, 900) / 100
            found.append((begin, begin + generator.integers(1, 300) / 100, str(generator.integers(speakers))))
        return found

    reference, hypothesis = turns(generator.integers(1, 5)), turns(generator.integers(1, 5))
    same(diarization_errors(reference, hypothesis), *frame_errors(reference, hypothesis))


@pytest.mark.parametrize(
    ("threshold", "median", "shift"), [(0.5, 1, 320), (0.3, 11, 320), (0.7, 11, 160), (0.4, 1, 256)]
)
def test_turns_are_those_of_make_rttm(threshold, median, shift, tmp_path, monkeypatch):
    import h5py
    import s3prl.downstream

    generator = np.random.default_rng(median)
    wanted = {}
    for number in range(3):
        steps = generator.normal(0, 0.08, (400, 2)).cumsum(0) + generator.normal(0, 0.15, (400, 2))
        wanted[f"rec{number}"] = (1 / (1 + np.exp(-4 * steps))).astype(np.float32)
    for name, probabilities in wanted.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("T_hat", data=probabilities)
    (tmp_path / "list").write_text("".join(f"{tmp_path / name}.h5\n" for name in wanted))
    script = f"{s3prl.downstream.__path__[0]}/diarization/make_rttm.py"
    options = [f"--threshold={threshold}", f"--median={median}", f"--frame_shift={shift}"]
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "list"), str(tmp_path / "rttm"), *options])
    runpy.run_path(script, run_name="__main__")
    written = read_rttm(tmp_path / "rttm")
    assert set(written) == set(wanted)
    for name, probabilities in wanted.items():
        turns = turns_of(probabilities, threshold, median, shift / 16_000)
        assert len(turns) > 4
        assert [(*turn[:2], f"{name}_{turn[2]}") for turn in turns] == written[name]


def test_the_best_of_the_grid():
    """Speech at 0.45 with a hole of one frame: only a low threshold finds it, only the median filter closes it."""
    probabilities = np.full((100, 2), 0.05)
    probabilities[20:80, 0] = 0.45
    probabilities[50, 0] = 0.1
    references = {"one": [(0.4, 1.6, "a")], "two": [(0.0, 1.0, "b")]}
    errors, threshold, median = best_errors(references, {"one": probabilities}, 0.02)
    assert (threshold, median) == (0.3, 11)
    assert errors["one"].total == pytest.approx(0) and errors["two"].missed == pytest.approx(1.0)
    assert error_rate(errors) == pytest.approx(1.0 / 2.2)
    assert (der.THRESHOLDS, der.MEDIANS) == ((0.3, 0.4, 0.5, 0.6, 0.7), (1, 11))


def test_files_that_are_wrong(tmp_path):
    path = tmp_path / "rttm"
    path.write_text("SPKR-INFO r 1 <NA> <NA> <NA> unknown a <NA>\n\nSPEAKER r 1 0.50 1.25 <NA> <NA> a <NA>\n")
    assert read_rttm(path) == {"r": [(0.5, 1.75, "a")]}
    path.write_text("SPEAKER r 1 0.50 x <NA> <NA> a <NA>\n")
    with pytest.raises(SpeechFTError, match=r"line 1 of .*rttm is no RTTM line"):
        read_rttm(path)
    with pytest.raises(SpeechFTError, match="no speech"):
        best_errors({"r": []}, {}, 0.02)
