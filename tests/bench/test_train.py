"""The comparison of training loops: its arithmetic, and the whole of it at a tiny size."""

import json
import time

import pytest
from test_forward import bench

from speechft.bench.stopwatch import Marks, Stopwatch
from speechft.bench.train import SIDES, Setting, record, table


def _round(seconds, cpu):
    return {"seconds": seconds, "cpu_seconds": cpu, "audio_seconds": 12.0, "steps": 6, "peak_bytes": 2e9}


def test_ratios_are_medians_against_the_better_of_the_two():
    rounds = {
        "speechft": [_round(4.0, 2.0), _round(3.0, 2.0), _round(99.0, 2.0)],
        "speechft_kept": [_round(2.0, 1.0)] * 3,
        "s3prl": [_round(12.0, 6.0)] * 3,
        "transformers": [_round(6.0, 3.0)] * 3,
    }
    profiles = {"speechft": {"CNN": 3.0, "backward": 1.0}, "speechft_kept": {"CNN": 0.0, "backward": 1.0}}
    found = record(Setting(), rounds, profiles, [0.5, 2.0])
    assert found["ratio"] == pytest.approx(6 / 4) and found["ratio_kept"] == pytest.approx(3)
    assert found["ratio_cpu_time"] == pytest.approx(1.5) and found["ratio_kept_cpu_time"] == pytest.approx(3)
    assert found["steps_per_second"]["transformers"] == pytest.approx(1)
    assert found["audio_seconds_per_step"]["transformers"] == pytest.approx(2)
    shown = "\n".join(table(found))
    assert "what the time of speechft goes to: CNN 75 %, backward 25 %" in shown and "load of the machine 0.5" in shown


def test_marks_leave_out_the_first_and_the_last_step():
    marks = Marks("cpu")
    for audio in (9.0, 1.0, 2.0, 9.0):
        marks.add(audio)
        time.sleep(0.02)
    figures = marks.figures()
    assert figures["audio_seconds"] == 3.0 and figures["steps"] == 2
    assert figures["seconds"] == pytest.approx(marks.clock[3] - marks.clock[1]) and figures["seconds"] >= 0.04
    assert figures["cpu_seconds"] < figures["seconds"]  # it slept


def test_a_stopwatch_counts_a_moment_once():
    class Work:
        def outer(self):
            _burn(0.05)
            self.inner()

        def inner(self):
            _burn(0.1)

    watch = Stopwatch("cpu")
    with watch.on(Work, "outer", "outer"), watch.on(Work, "inner", "inner"):
        Work().outer()
    assert watch.seconds["outer"] == pytest.approx(0.05, abs=0.03)
    assert watch.seconds["inner"] == pytest.approx(0.1, abs=0.03)
    assert not hasattr(Work.inner, "__wrapped__") and Work.inner.__name__ == "inner"


def _burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(("words", "message"), [
    (["--clips", "40"], "--clips 40 is too few for 6 steps of full batches; give at least 48, or leave it out"),
    (["--seconds", "0.1"], "--seconds is 0.1; give at least 0.5"),
    (["--precision", "int8"], "unknown precision 'int8'; known: no, bf16, fp16"),
])  # fmt: skip
def test_wrong_use_is_one_line(words, message, capsys):
    from speechft.bench.command import main

    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"speechft: error: {message}\n"


@pytest.mark.slow
def test_all_sides_run():
    done = bench("train", "--size", "tiny", "--seconds", "0.6", "--batch", "2", "--steps", "2",
                 "--repetitions", "1", "--device", "cpu", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert tuple(found["rounds"]) == SIDES and all(one[0]["steps"] == 2 for one in found["rounds"].values())
    assert all(one[0]["audio_seconds"] > 1 for one in found["rounds"].values())
    assert found["profile"]["speechft_kept"]["CNN"] < found["profile"]["speechft"]["CNN"]
