"""SE and SS: what they read, how they score, and both engines end to end."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from listener import Listener
from small import superb_settings, tone
from test_tasks import build, settings_for
from tiny_mixtures import make_libri2mix, make_voicebank

from speechft.errors import SpeechFTError
from speechft.report.collect import read_score
from speechft.superb import sound_metrics
from speechft.superb.evaluate import evaluate
from speechft.superb.tasks import get_task


def test_si_sdr_is_its_definition():
    """A target and something orthogonal to it of a tenth of its power are 10 dB apart, at any scale and offset."""
    generator = np.random.default_rng(0)
    target, other = generator.normal(size=(2, 4_000))
    target, other = target - target.mean(), other - other.mean()
    other -= target * (target @ other) / (target @ target)
    other *= np.sqrt(0.1 * (target @ target) / (other @ other))
    for scale, offset in ((1.0, 0.0), (0.3, 0.5), (-2.0, 1.0)):
        assert sound_metrics.si_sdr(target, scale * (target + other) + offset) == pytest.approx(10.0, abs=1e-4)
    assert sound_metrics.si_sdr(target, other) < -60


def test_metrics_are_means_over_sources():
    generator = np.random.default_rng(1)
    clean = generator.normal(size=(2, 4_000)).astype(np.float32)
    mix = clean.sum(axis=0, keepdims=True)
    guess = clean + 0.2 * generator.normal(size=clean.shape).astype(np.float32)
    found = sound_metrics.get_metrics(mix, clean, guess, metrics_list=["si_sdr"])
    for name, heard in (("input_si_sdr", (mix[0], mix[0])), ("si_sdr", guess)):
        each = [sound_metrics.si_sdr(one, other) for one, other in zip(clean, heard, strict=True)]
        assert found[name] == pytest.approx(np.mean(each))
    assert sound_metrics.get_metrics(mix, clean, guess, metrics_list=["si_sdr"]) == found  # the mixture's is remembered
    changed = sound_metrics.get_metrics(mix + 0.5 * guess[:1], clean, guess, metrics_list=["si_sdr"])
    assert changed["si_sdr"] == found["si_sdr"] and changed["input_si_sdr"] != found["input_si_sdr"]
    with pytest.raises(ValueError, match="not one mixture"):
        sound_metrics.get_metrics(mix, clean, guess[:1])


def test_all_three_are_asteroids():
    """Where asteroid is installed (it is not by default)."""
    metrics = pytest.importorskip("asteroid.metrics", reason="asteroid is not installed")
    if metrics.get_metrics is sound_metrics.get_metrics:
        pytest.skip("asteroid is not installed")
    generator = np.random.default_rng(2)
    clean = np.stack([tone(1.5, 180.0), tone(1.5, 330.0, seed=3)]).astype(np.float32)
    mix = clean.sum(axis=0, keepdims=True)
    guess = clean + 0.05 * generator.normal(size=clean.shape).astype(np.float32)
    names = ["si_sdr", "stoi", "pesq"]
    expected = metrics.get_metrics(mix, clean, guess, sample_rate=16_000, metrics_list=names)
    assert sound_metrics.get_metrics(mix, clean, guess, 16_000, names) == pytest.approx(expected, abs=1e-6)


def test_voicebank_is_split_as_s3prl_does(corpora, tmp_path):
    task, settings = get_task("se"), settings_for("se")
    expert = build(task, settings, corpora.data, tmp_path)
    names = {split: [path.stem for path in task.files(expert, split)] for split in ("train", "dev", "test")}
    assert {name[:4] for name in names["train"]} == {"p225", "p228"}
    assert {name[:4] for name in names["dev"]} == {"p226", "p287"}
    assert {name[:4] for name in names["test"]} == {"p232"}
    assert all(path.parent.name.startswith("noisy_") for path in task.files(expert, "test"))
    item = task.split(expert, "train", 1).items[2]
    assert np.array_equal(task.read(expert, "train", item), expert.train_dataset[2][1])


def test_both_names_of_voicebanks_folders(tmp_path):
    """As downloaded, or converted to 16 kHz beside it as s3prl asks: then that is taken."""
    make_voicebank(tmp_path)
    task = get_task("se")
    before = {path.name for path in task.folders(tmp_path, "train").values()}
    assert before == {"noisy_trainset_28spk_wav", "clean_trainset_28spk_wav"}
    for path in [one for one in tmp_path.iterdir() if "trainset" in one.name]:
        shutil.copytree(path, path.with_name(path.name + "_16k"))
    assert {path.name for path in task.folders(tmp_path, "dev").values()} == {f"{name}_16k" for name in before}
    assert task.missing_inside({"voicebank": str(tmp_path)}, ["voicebank"]) == []


def test_what_is_missing_inside(tmp_path):
    data = {"voicebank": str(make_voicebank(tmp_path / "vb")), "libri2mix": str(make_libri2mix(tmp_path / "mix"))}
    for name in ("se", "ss"):
        get_task(name).check(data, settings_for(name))
    (tmp_path / "vb" / "clean_trainset_28spk_wav" / "p225_002.wav").unlink()
    (tmp_path / "vb" / "noisy_testset_wav" / "p232_001.wav").unlink()
    with pytest.raises(SpeechFTError) as error:
        get_task("se").check(data, settings_for("se"))
    assert "1 of the 6 utterances of train have no clean file (p225_002)" in str(error.value)
    assert "1 of the 3 utterances of test have no noisy file (p232_001)" in str(error.value)
    (tmp_path / "mix" / "wav16k" / "min" / "dev" / "s2").rename(tmp_path / "away")
    shutil.rmtree(tmp_path / "mix" / "wav16k" / "min" / "test")
    with pytest.raises(SpeechFTError, match=r"dev/s2, .*test/mix_clean, .*test/s1, .*test/s2 not there \(Libri2Mix's"):
        get_task("ss").check(data, settings_for("ss"))
    with pytest.raises(SpeechFTError, match="has a space"):
        get_task("ss").check({"libri2mix": str(make_libri2mix(tmp_path / "two words"))}, settings_for("ss"))


def test_configs_are_s3prls_second_recipes(corpora, tmp_path):
    """enhancement_stft2/configs/cfg_voicebank.yaml and separation_stft2/configs/cfg.yaml of s3prl's repository."""

    recipes = superb_settings()["superb"]
    expected = {
        "se": ((100_000, 1250), (512, 400, 160), ("L1", "AM"), (["noisy"], ["clean"])),
        "ss": ((150_000, 2000), (1024, 1024, 0), ("MSE", "NPSM"), (["mix_clean"], ["s1", "s2"])),
    }
    for name, ((steps, every), lengths, (loss, mask), (mixture, sources)) in expected.items():
        config = get_task(name).config(recipes[name], corpora.data, tmp_path)
        runner, expert = config["runner"], config["downstream_expert"]
        assert (runner["total_steps"], runner["eval_step"], runner["gradient_accumulate_steps"]) == (steps, every, 1)
        assert runner["gradient_clipping"] == 1 and config["optimizer"] == {"name": "AdamW", "lr": 1e-3}
        data, model = expert["datarc"], expert["modelrc"]
        assert (data["n_fft"], data["win_length"], data["hop_length"]) == lengths
        assert (data["src"], data["tgt"], data["num_speakers"]) == (mixture, sources, len(sources))
        assert (expert["loaderrc"]["train_batchsize"], expert["loaderrc"]["eval_batchsize"]) == (8, 1)
        assert (model["rnn_layers"], model["hidden_size"], model["dropout"]) == (3, 256, 0.1)
        assert (model["non_linear"], model["log"], model["bidirectional"]) == ("sigmoid", "log1p", True)
        assert (model["loss_type"], model["mask_type"]) == (loss, mask)


def test_packages_are_asked_for(corpora, monkeypatch):
    """SS is scored by SI-SDR alone, which needs none."""
    from speechft.superb.tasks import masks

    monkeypatch.setattr(masks, "find_spec", lambda name: None)
    with pytest.raises(SpeechFTError, match=r"pesq, pystoi not installed \(pip install 'speechft\[enhancement\]'\)"):
        get_task("se").check(corpora.data, settings_for("se"))
    get_task("ss").check(corpora.data, settings_for("ss"))


def test_a_source_of_another_length(tmp_path, configuration, upstream):
    root = make_libri2mix(tmp_path / "mix")
    first = root / "wav16k" / "min" / "train-100" / "s1"
    shutil.copy(first / "0-1_0-2.wav", first / "1-1_1-2.wav")
    cfg = configuration(tasks=["ss"])
    cfg["data"]["libri2mix"] = str(root)
    with pytest.raises(SpeechFTError, match=r"s1/1-1_1-2.wav is not as long as its mixture"):
        evaluate([upstream], cfg=cfg, progress=Listener())


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
@pytest.mark.parametrize(("name", "metrics"), [("se", {"pesq", "stoi", "si_sdri"}), ("ss", {"si_sdri"})])
def test_end_to_end(name, metrics, engine, configuration, upstream, tmp_path):
    result = evaluate([upstream], engine=engine, cfg=configuration(tasks=[name]), progress=Listener())[0]
    assert set(result["metrics"]) == metrics and result["higher_better"] and result["selected_on"] == "dev"
    assert set(result["dev"]) == {*metrics, "step", "loss"} and result["dev"]["step"] in (3, 6)
    folder = tmp_path / "out" / "tiny"
    lines = [json.loads(line) for line in (folder / f"{name}.utterances.jsonl").open()]
    assert len(lines) == 3 and all(set(line) == {"file", *metrics} for line in lines)
    for metric in metrics:
        assert np.mean([line[metric] for line in lines]) == pytest.approx(result["metrics"][metric], abs=1e-5)
    score = read_score(folder / f"{name}.json")  # the report makes the same score of the lines
    assert score.utterances is not None
    assert score.utterances.score()[0] == pytest.approx(result["metrics"][result["metric"]], abs=1e-5)


def test_features_that_end_early_are_filled_as_s3prl_does(tmp_path):
    """Its own function for a few frames; and for more than it takes."""
    import torch

    from speechft.superb import compat
    from speechft.superb.tasks.masks import _to_length

    compat.install()
    from s3prl.downstream.enhancement_stft2.expert import match_length

    features = [torch.randn(frames, 3) for frames in (20, 17, 22)]
    lengths = torch.tensor([20, 20, 20])
    for one, other in zip(_to_length(match_length)(features, lengths), match_length(features, lengths), strict=True):
        assert torch.equal(one, other)
    (filled,) = _to_length(match_length)([features[0]], torch.tensor([29]))
    assert torch.equal(filled[:20], features[0]) and filled.shape == (29, 3) and not filled[20:].any()
