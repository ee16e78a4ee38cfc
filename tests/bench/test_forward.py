"""The comparison of forward passes, at a tiny size."""

import json
import os
import subprocess
import sys

import pytest
import torch

from speechft.bench.forward import Setting, batches, contenders, differences, measure, waveforms
from speechft.errors import SpeechFTError

TINY = ["--size", "tiny", "--waveforms", "5", "--seconds", "0.2", "0.6", "--batch", "2", "--repetitions", "2",
        "--device", "cpu", "--threads", "1"]  # fmt: skip


def bench(*words):
    return subprocess.run(
        [sys.executable, "-m", "speechft.bench", *words], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_last_line_has_every_figure():
    done = bench("forward", *TINY, "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.strip().splitlines()
    record = json.loads(last)
    rates, times = record["audio_seconds_per_second"], record["seconds_measured"]
    assert record["bench"] == "forward" and list(rates) == ["speechft", "s3prl", "transformers"]
    for name in ("s3prl", "transformers"):
        assert record[f"ratio_to_{name}"] == pytest.approx(rates["speechft"] / rates[name])
        assert record["largest_difference"][name] < 1e-4
        assert record["padded_seconds"][name] >= record["padded_seconds"]["speechft"] >= record["audio_seconds"]
        assert any(f"| {name} |" in line for line in shown)
    for name, measured in times.items():
        assert len(measured) == 2
        assert rates[name] == pytest.approx(record["audio_seconds"] / (sum(measured) / 2))
    assert record["precision"] == "bf16" and record["threads"] == 1 and record["versions"]["s3prl"]


def test_json_alone(capsys):
    from speechft.bench.command import main

    assert main(["forward", *TINY, "--json"]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 1 and json.loads(told)["precision"] == "no"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backward"], "unknown comparison 'backward'; known: forward, together, superb, train, merge"),
        (["forward", "--batch", "0"], "--batch is 0; give a whole number of at least 1"),
        (["forward", "--seconds", "3", "1"], "--seconds 3 1 is no range; the shorter first, at least 0.1"),
        (["forward", "--precision", "int8"], "unknown precision 'int8'; known: no, bf16, fp16"),
        (["forward", "--faster"], "unrecognized arguments: --faster; see scripts/bench forward --help"),
    ],
)
def test_wrong_use_is_one_line(words, message, capsys):
    from speechft.bench.command import main

    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"speechft: error: {message}\n"


def test_our_batches_are_bucketed_and_no_larger():
    setting = Setting(waveforms=11, batch=4, seconds=(0.2, 1.0))
    lengths = [len(wave) for wave in waveforms(setting)]
    assert all(torch.equal(a, b) for a, b in zip(waveforms(setting), waveforms(setting), strict=True))
    plans = batches(setting, lengths)
    limit = 4 * max(lengths)
    for plan in plans.values():
        assert sorted(position for batch in plan for position in batch) == list(range(11))
        assert all(len(batch) * max(lengths[position] for position in batch) <= limit for batch in plan)
    assert [len(batch) for batch in plans["s3prl"]] == [4, 4, 3]


def test_one_changed_weight_is_noticed(tmp_path):
    setting = Setting(size="tiny", waveforms=1, seconds=(0.5, 0.5))
    forwards, ours = contenders(setting, tmp_path)
    (wave,) = waveforms(setting)
    assert max(differences(forwards, wave).values()) < 1e-4
    with torch.no_grad():
        ours.model.encoder.layers[1].attention.k_proj.weight[0, 0] += 1.0
    with pytest.raises(SpeechFTError, match="this comparison is void"):
        differences(forwards, wave)


def test_models_that_differ_are_not_compared():
    wave = torch.zeros(1, 3, 2)
    with pytest.raises(SpeechFTError, match=r"differ from s3prl's by up to 0.5; this comparison is void"):
        differences({"speechft": lambda _: [wave], "s3prl": lambda _: [wave + 0.5]}, torch.zeros(400))
    with pytest.raises(SpeechFTError, match="other shapes"):
        differences({"speechft": lambda _: [wave], "s3prl": lambda _: [wave, wave]}, torch.zeros(400))


def test_the_machine_is_left_as_it_was():
    before = torch.get_num_threads()
    setting = Setting(waveforms=2, seconds=(0.2, 0.3), repetitions=1, threads=before + 1, size="tiny")
    assert measure(setting)["threads"] == before + 1
    assert torch.get_num_threads() == before
