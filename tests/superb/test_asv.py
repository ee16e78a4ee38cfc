"""ASV: trimmed files, the trial list, the best of the states, and the fast engine against s3prl's Runner."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import roc_curve
from small import superb_settings
from speaker_corpora import make_verification
from test_evaluate import Listener
from test_exactness import AloneRun, settings_for
from test_tasks import build

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.report.collect import read_score
from speechft.superb import compat
from speechft.superb.assemble import assemble
from speechft.superb.bridge import registered
from speechft.superb.evaluate import evaluate
from speechft.superb.quiet import quiet
from speechft.superb.store import FeatureStore
from speechft.superb.tasks import get_task

EFFECTS = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
SILENCE = ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_verification(tmp_path_factory.mktemp("asv"))


@pytest.fixture
def built(data, tmp_path):
    """The task within its environment, and s3prl's expert."""
    compat.install()
    task = get_task("asv")
    with quiet(tmp_path / "log"), task.environment(tmp_path):
        yield task, build(task, settings_for("asv"), data, tmp_path)


def test_the_official_recipe(tmp_path):
    config = get_task("asv").config(
        superb_settings()["superb"]["asv"], {"voxceleb1": "/v", "voxceleb1_trials": "/t"}, tmp_path
    )
    runner = config["runner"]
    assert (runner["total_steps"], runner["gradient_accumulate_steps"], runner["gradient_clipping"]) == (
        200_000,
        5,
        1e3,
    )
    assert runner["eval_dataloaders"] == [] and runner["save_step"] == 20_000 and runner["max_keep"] > 10
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "AdamW", "lr": 1e-4}
    datarc, modelrc = (config["downstream_expert"][key] for key in ("datarc", "modelrc"))
    assert (datarc["vad_config"]["min_sec"], datarc["max_timestep"], datarc["train_batch_size"]) == (
        32_000,
        128_000,
        10,
    )
    assert (modelrc["module"], modelrc["agg_module"], modelrc["input_dim"]) == ("XVector", "SP", 512)


def test_files_are_trimmed_and_short_ones_left_out(built, data, tmp_path):
    task, expert = built
    names = [path.name for path in task.files(expert, "train")]
    assert len(names) == 20 and "00009.wav" not in names  # it holds 0.2 s
    for split in task.splits:
        planned = task.split(expert, split, 2)
        for item in planned.items[:4]:
            wave = task.read(expert, split, item)
            whole, _ = soundfile.read(item.path, dtype="float32")
            sounding = (whole != 0).sum()  # pauses are zeros; after each sound the RMS needs up to 20 ms to fall
            assert sounding - 100 <= len(wave) <= sounding + 6 * 320 and len(whole) > len(wave) + 3_000
            if split == "train":
                assert item.samples == len(wave)
    assert task.files(expert, "test") == sorted(task.files(expert, "test"))


def test_lengths_are_measured_once(built, data, tmp_path, monkeypatch):
    from s3prl.downstream.sv_voxceleb1 import dataset

    task, first = built
    monkeypatch.setattr(dataset, "apply_effects_file", lambda *_: 1 / 0)
    with task.environment(tmp_path):
        second = build(task, settings_for("asv"), data, tmp_path)
    assert second.train_dataset.dataset == first.train_dataset.dataset


def test_reading_lengths_is_told(tmp_path):
    """A corpus of 150 000 files takes long."""
    compat.install()
    data, task, told = make_verification(tmp_path / "vox"), get_task("asv"), []
    task.bar = lambda label: lambda done, total: told.append((label, done, total))
    with task.environment(tmp_path):
        build(task, settings_for("asv"), data, tmp_path)
    files = len(list((tmp_path / "vox" / "dev").rglob("*.wav")))
    assert told == [("asv lengths without pauses", number + 1, files) for number in range(files)]


def test_an_unreadable_training_file(tmp_path):
    compat.install()
    data = make_verification(tmp_path / "vox")
    broken = tmp_path / "vox" / "dev" / "wav" / "id10002" / "video_0" / "00000.wav"
    broken.write_bytes(b"no audio")
    task = get_task("asv")
    with task.environment(tmp_path), pytest.raises(SpeechFTError, match=f"audio file {broken} cannot be read"):
        build(task, settings_for("asv"), data, tmp_path)


def test_crops_are_drawn_and_repeatable(data, tmp_path):
    compat.install()
    task, settings = get_task("asv"), {**settings_for("asv"), "crop_seconds": 0.6, "crops": 3}
    with quiet(tmp_path / "log"), task.environment(tmp_path):
        expert = build(task, settings, data, tmp_path)
        split = task.split(expert, "train", 3)
        items = [item for item in split.items if item.random]
        assert items and {item.draw for item in items} == {0, 1, 2} and len(items) < len(split.items)
        first = [task.read(expert, "train", item) for item in items[:3]]
        random.seed(1)
        again = [task.read(expert, "train", item) for item in items[:3]]
    assert all(len(wave) == 9_600 for wave in first)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("steps", [24])
def test_fast_is_s3prl(data, upstream, tmp_path, steps):
    compat.install()
    task, settings = get_task("asv"), {**settings_for("asv"), "steps": steps}
    with quiet(tmp_path / "reference.log"), task.environment(tmp_path), registered(upstream) as name:
        config = task.config(settings, data, tmp_path)
        reference = AloneRun(task, config, name, tmp_path / "reference", seed=5, device="cpu")
        expected = reference.run()
        lines = task.utterances(expected.records)
    losses: list[float] = []
    with quiet(tmp_path / "fast.log"), task.environment(tmp_path):
        run = assemble(
            task, settings, data, upstream, FeatureStore(tmp_path / "store"), tmp_path / "fast",
            seed=5, device=torch.device("cpu"), frames_dtype="float32", batch_seconds=4.0, budget_gb=1.0,
        )  # fmt: skip
        run.on_loss = lambda step, loss: losses.append(loss)
        outcome = run.run()
        ours = task.utterances(outcome.records)
    assert len(losses) == len(reference.losses) == steps * settings["accumulate"]
    assert losses == pytest.approx(reference.losses, rel=1e-4, abs=1e-4)
    assert losses[-1] < losses[0]
    assert outcome.metrics == pytest.approx(expected.metrics, abs=1e-6)
    assert outcome.dev == pytest.approx(expected.dev, abs=1e-6)
    assert [(one["file"], one["label"]) for one in ours] == [(one["file"], one["label"]) for one in lines]
    assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in lines], abs=1e-4)


def equal_error_rate(lines) -> float:
    """Where misses and false alarms are equal, on scikit-learn's curve."""
    alarms, hits, _ = roc_curve([one["label"] for one in lines], [one["score"] for one in lines])
    grid = np.linspace(0, 1, 200_001)
    return float(grid[np.argmin(np.abs(1 - grid - np.interp(grid, alarms, hits)))])


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_end_to_end(engine, data, configuration, upstream, tmp_path):
    cfg = configuration({"steps": 7, "eval_step": 2}, tasks=["asv"])
    cfg["data"].update(data)
    result = evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())[0]
    assert result["metric"] == "eer" and result["selected_on"] == "test" and list(result["metrics"]) == ["eer"]
    assert result["dev"]["step"] in (2, 4, 6) and result["dev"]["eer"] == result["metrics"]["eer"]
    folder = tmp_path / "out" / "tiny"
    lines = [json.loads(line) for line in (folder / "asv.utterances.jsonl").open()]
    assert len(lines) == result["test_utterances"] == 36 and sum(one["label"] for one in lines) == 9
    assert lines[0]["file"] == "id10006-video_0-00000_id10006-video_0-00002"
    assert equal_error_rate(lines) == pytest.approx(result["metrics"]["eer"], abs=1e-4)
    assert read_json(folder / "asv.json") == result
    score = read_score(folder / "asv.json")  # the report makes the same score of the lines
    assert score.utterances is not None and len(score.utterances) == 36
    assert score.utterances.score()[0] == pytest.approx(result["metrics"]["eer"], abs=1e-6)
    if engine == "s3prl":  # every state was kept and the best one counts
        states = sorted(path.name for path in (folder / ".work" / "asv-s3prl" / "s3prl").glob("states-*.ckpt"))
        assert states == ["states-2.ckpt", "states-4.ckpt", "states-6.ckpt"]


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_an_utterance_that_is_too_short_is_named(engine, configuration, upstream, tmp_path):
    short = make_verification(tmp_path / "asv")
    file = tmp_path / "asv" / "test" / "wav" / "id10007" / "video_1" / "00001.wav"
    soundfile.write(file, soundfile.read(file)[0][: round(0.3 * 16_000)], 16_000)
    cfg = configuration({"steps": 2, "eval_step": 2}, tasks=["asv"])
    cfg["data"].update(short)
    with pytest.raises(SpeechFTError, match=r"id10007/video_1/00001\.wav has 9 frames .* leave its trials out"):
        evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_several_rates_end_as_each_alone(engine, data, configuration, upstream):
    def scored(lr):
        cfg = configuration({"steps": 8, "eval_step": 4, "lr": lr}, tasks=["asv"])
        cfg["data"].update(data)
        return evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())[0]

    alone = {lr: scored(lr)["dev"] for lr in (3e-3, 1e-2)}
    together = scored([3e-3, 1e-2])
    assert {one["lr"]: one["dev"] for one in together["lr_search"]} == alone
    assert alone[3e-3] != alone[1e-2] and together["metrics"]["eer"] == min(dev["eer"] for dev in alone.values())


def test_the_best_state_counts(data, configuration, upstream, monkeypatch):
    """Not the last one, and the first of equals."""
    from speechft.superb.tasks.asv import ASV

    scores = iter([0.4, 0.2, 0.2, 0.3])
    monkeypatch.setattr(ASV, "metrics", lambda self, *_: {"eer": next(scores, 0.2)})
    cfg = configuration({"steps": 8, "eval_step": 2}, tasks=["asv"])
    cfg["data"].update(data)
    assert evaluate([upstream], cfg=cfg, progress=Listener())[0]["dev"] == {"eer": 0.2, "step": 4}


def test_what_is_missing_inside(tmp_path):
    data = make_verification(tmp_path / "vox")
    task, settings, listing = get_task("asv"), settings_for("asv"), tmp_path / "vox" / "trials.txt"
    task.check(data, settings)
    assert task.paths({"voxceleb1": data["voxceleb1"]}, "voxceleb1_trials") == []
    listing.rename(tmp_path / "vox" / "veri_test2.txt")
    task.check({"voxceleb1": data["voxceleb1"]}, settings)
    (tmp_path / "vox" / "veri_test2.txt").rename(listing)
    (tmp_path / "vox" / "test" / "wav" / "id10006" / "video_0" / "00000.wav").unlink()
    with pytest.raises(SpeechFTError, match=r"1 of the 9 files of .* \(id10006/video_0/00000.wav\)"):
        task.check(data, settings)
    lines = listing.read_text().splitlines()
    for text, message in (
        ("\n".join([*lines[:2], "id1 id2"]), "line 3 of"),
        ("\n".join(line for line in lines if line[0] == "1"), "has no same or no different speakers"),
    ):
        listing.write_text(text)
        with pytest.raises(SpeechFTError, match=message):
            task.check(data, settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeechFTError, match=r"dev/wav does not exist.*test/wav does not exist"):
        task.check({**data, "voxceleb1": str(tmp_path / "empty")}, settings)
