"""The comparison of hearing together, at a tiny size."""

import json

import pytest
import torch

from speechft.bench import together
from speechft.bench.command import main
from speechft.bench.together import Setting, family, measure
from speechft.errors import SpeechFTError

TINY = ["--size", "tiny", "--models", "3", "--waveforms", "4", "--seconds", "0.2", "0.5", "--repetitions", "2",
        "--device", "cpu", "--threads", "1"]  # fmt: skip


def test_the_last_line_has_every_figure(capsys):
    assert main(["together", *TINY]) == 0
    *shown, last = capsys.readouterr().out.strip().splitlines()
    record = json.loads(last)
    times = record["seconds_measured"]
    assert {name: len(measured) for name, measured in times.items()} == {"one after the other": 2, "together": 2}
    assert record["ratio"] == pytest.approx(sum(times["one after the other"]) / sum(times["together"]))
    assert record["models"] == 3 and any("| together |" in line for line in shown)


def test_the_models_differ_in_all_but_the_cnn():
    one, other = (dict(upstream.named_parameters()) for upstream in family(Setting(models=2, size="tiny")))
    equal = {name for name in one if torch.equal(one[name], other[name])}
    assert equal >= {name for name in one if "feature_extractor" in name}
    assert not any("weight" in name and "norm" not in name for name in equal if "feature_extractor" not in name)


def test_features_that_differ_void_it(monkeypatch):
    monkeypatch.setattr(together, "encode", lambda upstream, waves, *others: [wave[:1] for wave in waves])
    with pytest.raises(SpeechFTError, match="not those of each alone"):
        measure(Setting(models=2, size="tiny", waveforms=2, seconds=(0.2, 0.3)))


def test_one_model_is_no_comparison(capsys):
    assert main(["together", "--models", "1"]) == 2
    assert "--models is 1; give at least 2" in capsys.readouterr().err
