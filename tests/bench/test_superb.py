"""The comparison of SUPERB's loops, at a tiny size, and what is made of its figures."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from small import superb_settings

from speechft.bench import scale
from speechft.bench.corpora import Sizes, lengths, make
from speechft.bench.scale import Measured, extrapolate
from speechft.bench.sides import middle
from speechft.superb.tasks import get_task

TINY = ["--size", "tiny", "--device", "cpu", "--threads", "1", "--speaker-seconds", "1", "--sentence-seconds", "1",
        "--head-steps", "3", "--repetitions", "2", "--rates", "2", "--rows", "50", "--batch", "4"]  # fmt: skip


@pytest.fixture(scope="module")
def done():
    return subprocess.run(
        [sys.executable, "-m", "speechft.bench", "superb", *TINY], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def record(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_figure_is_there(done, record):
    assert record["bench"] == "superb" and record["extrapolated"] is True and record["versions"]["s3prl"]
    assert "are extrapolated" in done.stdout.splitlines()[0]
    assert set(record["tasks"]) == {"ks", "sid", "pr"}
    for name, one in record["tasks"].items():
        measured, rounds = one["measured"], one["rounds"]
        assert len(rounds) == 2 and all(value > 0 for figures in rounds for value in figures.values())
        for key in ("encode", "ours", "theirs", "our_dev", "their_dev"):
            assert measured[key] == pytest.approx(sum(figures[key] for figures in rounds) / 2)
        heads = one["head_steps_per_second"]
        assert record[f"head_ratio_{name}"] == heads["ratio"] == pytest.approx(heads["speechft"] / heads["s3prl"])
        assert one["steps_per_second"]["s3prl"] == pytest.approx(1 / measured["theirs"] / one["accumulate"])
        assert any(line.startswith(f"| {name}") for line in done.stdout.splitlines())
    assert [record["tasks"][name]["accumulate"] for name in ("ks", "sid", "pr")] == [1, 4, 2]
    assert record["tasks"]["pr"]["measured"]["rates"] == 2 and record["tasks"]["sid"]["measured"]["rates"] == 1


def test_the_ratios_follow_from_the_figures(record):
    """Worked out once more from the numbers of the recipes and corpora."""
    ks = record["tasks"]["ks"]["measured"]
    theirs = 200_000 * ks["theirs"] + (50 * 6_798 + 3_081) * ks["their_dev"]
    ours = (
        (51_094 + 6_798 + 3_081 + 1_200) * ks["encode"]
        + 200_000 * ks["ours"] + (50 * 6_798 + 3_081) * ks["our_dev"]
    )  # fmt: skip
    assert record["ratio_ks"] == pytest.approx(theirs / ours)
    pr = record["tasks"]["pr"]["measured"]
    train, dev, test = (hours * 3600 for hours in (100.6, 5.4, 5.4))
    longer = train / 28_539 / pr["mean_seconds"]
    theirs = 2 * 200_000 * pr["theirs"] * longer + (2 * 100 * dev + test) * pr["their_dev"]
    evaluating = (100 * dev + test / 2) / pr["mean_seconds"] * pr["our_dev"]
    stored = (train + dev + test) * pr["encode"] + 200_000 * pr["ours"] * longer + evaluating
    streamed = (dev + test) * pr["encode"] + 200_000 * pr["streamed"] * longer + evaluating
    assert record["ratio_pr_stored"] == pytest.approx(theirs / stored, rel=1e-3)
    assert record["tasks"]["pr"]["full_recipe"]["streamed"]["ratio"] == pytest.approx(theirs / streamed, rel=1e-3)


def test_frames_over_the_budget_count_as_streamed():
    measured = Measured(
        mean_seconds=12.69, encode=0.1, ours=0.5, streamed=20.0, theirs=21.0, our_dev=0.01,
        their_dev=0.1, row_bytes=13 * 768 * 4, rates=5, frames=True,
    )  # fmt: skip
    full = extrapolate("pr", measured, superb_settings()["superb"]["pr"])
    assert full["speechft"]["disk_gb"] == pytest.approx(111.4 * 3600 * 50 * 39_936 / 1e9, rel=1e-3)
    assert full["streamed"]["disk_gb"] == pytest.approx(10.8 * 3600 * 50 * 39_936 / 1e9, rel=1e-3)
    assert full["streamed"]["ratio_without_evaluations"] == pytest.approx(5 * 21 / 20, rel=1e-2)
    slower = replace(measured, theirs=42.0)
    assert extrapolate("pr", slower, superb_settings()["superb"]["pr"])["s3prl"]["training_hours"] == pytest.approx(
        2 * full["s3prl"]["training_hours"]
    )


def test_crops_are_encoded_and_stored():
    """By the distribution that VoxCeleb1's lengths are taken to have, worked out on paper: 4 s and an exponential."""
    measured = Measured(
        mean_seconds=8.2, encode=0.1, ours=0.001, streamed=None, theirs=5.0, our_dev=1e-4, their_dev=0.1,
        row_bytes=100, rates=1, frames=False,
    )  # fmt: skip
    recipe = superb_settings()["superb"]["sid"]
    longer = math.exp(-4 / 4.2)  # than the crop of 8 s
    short = 4 * (1 - longer) + 4.2 * (1 - longer * (1 + 4 / 4.2))  # seconds, of those that are not
    # two crops of each that is longer, and one more for each further 8 s that begin
    crops = 2 * longer + sum(math.exp(-(8 * more - 4) / 4.2) for more in range(2, 12))
    for given, kept in ((None, crops), (1, longer), (8, 8 * longer)):
        full = extrapolate("sid", measured, {**recipe, "crops": given})["speechft"]
        seconds = 138_361 * (short + 8 * kept) + (6_904 + 8_251) * 8.2
        assert full["encoding_hours"] == pytest.approx(seconds * 0.1 / 3600, rel=1e-3)
        rows = 138_361 * (1 - longer + kept) + 6_904 + 8_251
        assert full["disk_gb"] == pytest.approx(rows * 100 / 1e9, rel=1e-3)
        assert full["training_hours"] == pytest.approx(800_000 * 0.001 / 3600)


def test_speakers_lengths_are_as_voxceleb1s():
    seconds = scale.lengths(8.2, 4.0, 1000)
    assert sum(seconds) / 1000 == pytest.approx(8.2) and 4.0 < min(seconds) < 4.01
    assert sum(one > 8 for one in seconds) / 1000 == pytest.approx(math.exp(-4 / 4.2), abs=2e-3)


def test_the_corpora_are_complete(tmp_path):
    from speechft.data.audio import audio_info

    data = make(tmp_path, Sizes(2, 3, 4, 1, 0.6, 0.8, 1.0))
    for name in ("ks", "sid", "pr"):
        assert get_task(name).missing(data) == []
    files = sorted((tmp_path / "librispeech" / "train-clean-100").rglob("*.flac"))
    seconds = [audio_info(path).samples / 16_000 for path in files]
    assert len(files) == 4 and sum(seconds) / 4 == pytest.approx(0.8, abs=1e-3)
    assert min(lengths(8.2, 100)) > 4.1 and sum(lengths(8.2, 100)) == pytest.approx(820)


def test_the_timing_is_of_the_gaps():
    assert middle([0.0, 1.0, 3.0, 4.0]) == 1.0


def test_ready_features_have_the_shape_of_real_ones():
    from speechft.bench.sides import Ready

    states = Ready(3, 5, 320)([torch.zeros(16_000), torch.zeros(8_000)])["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(2, 49, 5)] * 3


def test_s3prl_is_timed_from_batch_to_batch(tmp_path):
    """A slower upstream is a longer step of s3prl's loop, by as much."""
    from speechft.bench.sides import Ready, Theirs
    from speechft.bench.superb import Setting
    from speechft.superb import compat
    from speechft.superb.quiet import quiet

    class Slow(Ready):
        def forward(self, wavs):
            time.sleep(0.3)
            return super().forward(wavs)

    compat.install()
    data = {**superb_settings()["data"], **make(tmp_path, Sizes(1, 4, 4, 1, 0.6, 0.6, 1.0))}
    recipe = {**superb_settings()["superb"]["sid"], "batch_size": 4, "accumulate": 1, "num_workers": 0}
    with quiet(tmp_path / "log"):
        side = Theirs(Setting(), get_task("sid"), recipe, data, Slow(3, 8, 320), tmp_path / "x")
        figures = side.measure(2, evaluate=True)
    assert 0.3 < figures["theirs"] < 1.5
    assert figures["their_dev"] > 0.3 / 0.9  # one dev utterance of at most 0.9 s


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps is 0; give a whole number of at least 1"),
        (["--rates", "9"], "--rates is 9; at most 5"),
        (["--sentence-seconds", "0.1"], "--sentence-seconds is 0.1; give at least 0.5"),
        (["--tasks", "st"], "unknown task st; known: ks, sid, pr"),
        (["--size", "huge"], "unknown --size 'huge'; known: base, tiny"),
    ],
)
def test_wrong_use_is_one_line(words, message, capsys):
    from speechft.bench.command import main

    assert main(["superb", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"speechft: error: {message}\n"
