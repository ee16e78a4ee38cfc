"""SD: kaldi folders, chunks and labels, the official error rate, and the fast engine against s3prl's Runner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small import superb_settings
from speaker_corpora import make_librimix
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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_librimix(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def built(data, tmp_path):
    compat.install()
    task = get_task("sd")
    with quiet(tmp_path / "log"):
        yield task, build(task, settings_for("sd"), data, tmp_path)


def test_the_official_recipe(tmp_path):
    config = get_task("sd").config(superb_settings()["superb"]["sd"], {"librimix": "/l"}, tmp_path)
    runner, expert = config["runner"], config["downstream_expert"]
    assert (runner["total_steps"], runner["gradient_accumulate_steps"], runner["gradient_clipping"]) == (30_000, 4, 1)
    assert runner["eval_step"] == 500 and runner["eval_dataloaders"] == ["dev"]
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1e-4}
    assert expert["modelrc"] == {"rnn_layers": 1, "hidden_size": 512}
    assert (expert["datarc"]["chunk_size"], expert["datarc"]["num_speakers"]) == (2000, 2)
    assert "frame_shift" not in expert["datarc"]  # the expert then takes the upstream's
    assert (expert["loaderrc"]["train_batchsize"], expert["loaderrc"]["train_dir"]) == (8, "/l/train")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_items_are_the_chunks_that_s3prl_reads(built, split):
    """Waveforms and labels of every element, against the loader s3prl would iterate."""
    task, expert = built
    loader, planned = task.loader(expert, split), task.split(expert, split, 1)
    batch = task.batches(expert, planned, loader)
    several = 0
    for index in range(len(loader.dataset)):
        waves, labels, lengths, name = loader.collate_fn([loader.dataset[index]])
        numbers, (our_labels, our_lengths, our_name) = batch([index])
        assert len(numbers) == len(waves) and name == our_name and lengths.tolist() == our_lengths.tolist()
        assert all(np.array_equal(one, other) for one, other in zip(labels, our_labels, strict=True))
        for number, wave in zip(numbers, waves, strict=True):
            item = planned.items[number]
            assert item.samples == len(wave) and np.array_equal(task.read(expert, split, item), wave)
        several += len(waves) > 1
    assert sum(np.sum(label) for label in labels) > 0
    assert (several > 0) == (split == "test")  # a recording in its chunks, 50 frames of 320 samples each
    assert len(planned.items) > len(task.files(expert, "test")) or split != "test"


@pytest.mark.parametrize("steps", [24])
def test_fast_is_s3prl(data, upstream, tmp_path, steps):
    compat.install()
    task, settings = get_task("sd"), {**settings_for("sd"), "steps": steps}
    with quiet(tmp_path / "reference.log"), task.environment(tmp_path), registered(upstream) as name:
        config = task.config(settings, data, tmp_path)
        reference = AloneRun(task, config, name, tmp_path / "reference", seed=5, device="cpu")
        expected = reference.run()
    losses: list[float] = []
    with quiet(tmp_path / "fast.log"), task.environment(tmp_path):
        run = assemble(
            task, settings, data, upstream, FeatureStore(tmp_path / "store"), tmp_path / "fast",
            seed=5, device=torch.device("cpu"), frames_dtype="float32", batch_seconds=4.0, budget_gb=1.0,
        )  # fmt: skip
        run.on_loss = lambda step, loss: losses.append(loss)
        outcome = run.run()
    assert len(losses) == len(reference.losses) == steps * settings["accumulate"]
    assert losses == pytest.approx(reference.losses, rel=1e-5, abs=1e-5)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert outcome.metrics == pytest.approx(expected.metrics, abs=1e-5)
    assert outcome.dev == pytest.approx(expected.dev, abs=1e-5)
    assert outcome.weights == pytest.approx(expected.weights, abs=1e-5)
    ours, theirs = task.utterances(outcome.records), task.utterances(expected.records)
    assert [one["file"] for one in ours] == [one["file"] for one in theirs]
    for key in ("errors", "length", "missed", "false_alarm", "confusion"):
        assert [one[key] for one in ours] == pytest.approx([one[key] for one in theirs], abs=1e-9)


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_end_to_end(engine, data, configuration, upstream, tmp_path):
    cfg = configuration(tasks=["sd"])
    cfg["data"].update(data)
    result = evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())[0]
    assert result["metric"] == "der" and result["higher_better"] is False and result["selected_on"] == "dev"
    assert set(result["metrics"]) == {"der", "frame_der", "acc", "threshold", "median"}
    assert result["metrics"]["threshold"] in (0.3, 0.4, 0.5, 0.6, 0.7) and result["metrics"]["median"] in (1, 11)
    assert result["dev"]["step"] in (3, 6) and set(result["dev"]) == {"acc", "frame_der", "step"}
    folder = tmp_path / "out" / "tiny"
    assert read_json(folder / "sd.json") == result
    score = read_score(folder / "sd.json")  # the report makes the same score of the lines
    assert score.utterances is not None and len(score.utterances) == 4
    assert score.utterances.score()[0] == pytest.approx(result["metrics"]["der"], abs=1e-6)
    lines = [json.loads(line) for line in (folder / "sd.utterances.jsonl").open()]
    assert [one["file"] for one in lines] == ["test0", "test1", "test2", "test3"]
    rttm = [line.split() for line in Path(data["librimix"], "test", "rttm").read_text().splitlines()]
    for line in lines:  # nobody's turns overlap with their own, so speaker time is the sum of durations
        assert line["length"] == pytest.approx(sum(float(one[4]) for one in rttm if one[1] == line["file"]), abs=1e-6)
    score = sum(one["errors"] for one in lines) / sum(one["length"] for one in lines)
    assert score == pytest.approx(result["metrics"]["der"]) and 0 < score <= 1.5
    predictions = folder / ".work" / f"sd-{engine}" / "s3prl" / "scoring" / "predictions"
    assert sorted(path.name for path in predictions.iterdir()) == [f"test{number}.h5" for number in range(4)]


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_several_rates_are_compared_by_the_frame_error_on_dev(engine, data, configuration, upstream):
    def scored(lr):
        cfg = configuration({"steps": 8, "eval_step": 4, "lr": lr}, tasks=["sd"])
        cfg["data"].update(data)
        return evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())[0]

    together = scored([1e-5, 3e-2])
    errors = {one["lr"]: one["dev"]["frame_der"] for one in together["lr_search"]}
    assert errors[3e-2] < errors[1e-5] and together["lr"] == 3e-2
    alone = scored(3e-2)
    assert together["metrics"] == pytest.approx(alone["metrics"], abs=1e-6) and together["dev"] == alone["dev"]


def test_perfect_predictions_have_no_errors(built, data, tmp_path):
    """Labels written as if they were predictions: what remains is the rounding of turns to frames."""
    import h5py

    from speechft.superb.tasks.sd import reference_turns

    task, expert = built
    dataset = task.loader(expert, "test").dataset
    for index, name in enumerate(dataset.rec_list):
        labels = np.concatenate(dataset[index][1])
        with h5py.File(Path(expert.score_dir) / "predictions" / f"{name}.h5", "w") as file:
            file.create_dataset("T_hat", data=0.01 + 0.98 * labels)
    records: dict = {}
    metrics = task.final(expert, {"frame_der": 0.5}, records)
    assert metrics["frame_der"] == 0.5 and metrics["der"] < 0.06 and len(records["recordings"]) == 4
    with_rttm = reference_turns(dataset)
    (Path(data["librimix"]) / "test" / "rttm").rename(tmp_path / "rttm")
    try:
        from_segments = reference_turns(dataset)
    finally:
        (tmp_path / "rttm").rename(Path(data["librimix"]) / "test" / "rttm")
    assert set(from_segments) == set(with_rttm)
    for name, turns in from_segments.items():
        assert [turn[2] for turn in turns] == [turn[2] for turn in with_rttm[name]]
        assert np.allclose([turn[:2] for turn in turns], [turn[:2] for turn in with_rttm[name]], atol=0.011)


def test_what_is_missing_inside(tmp_path):
    data = make_librimix(tmp_path)
    task, settings, root = get_task("sd"), settings_for("sd"), tmp_path / "data"
    task.check(data, settings)
    saved = {path: path.read_text() for path in root.rglob("*") if path.is_file()}

    def complains(match: str) -> None:
        with pytest.raises(SpeechFTError, match=match):
            task.check(data, settings)
        for path, text in saved.items():
            path.write_text(text)

    (root / "dev" / "segments").unlink()
    (root / "test" / "reco2dur").unlink()
    complains(r"dev/segments, .*test/reco2dur not there \(the folder with train, dev and test")
    (root / "train" / "segments").write_text("\n".join(saved[root / "train" / "segments"].split("\n")[4:]))
    (root / "train" / "reco2dur").write_text("train0 1.0\n")
    complains(r"train/reco2dur lacks: train1, train2, train3, train4, train5 and 3 more; .*segments lacks: train0")
    (root / "dev" / "utt2spk").write_text("")
    complains(r"dev/utt2spk lacks: ")
    (root / "test" / "wav.scp").write_text("test0 sph2pipe x |\n")
    complains(r"test/wav.scp has commands \(test0 ...\)")
    (tmp_path / "wav" / "test" / "test1.wav").unlink()
    complains(r"test/wav.scp names files that are not there: .*test1.wav \(test1\)")


def test_recordings_that_do_not_fit(tmp_path, upstream, configuration):
    cfg = configuration(tasks=["sd"])
    cfg["data"].update(make_librimix(tmp_path / "mix"))
    cfg["superb"]["sd"]["num_speakers"] = 1
    with pytest.raises(SpeechFTError, match=r"train0 of .* has 2 speakers, more than 1; set superb.sd.num_speakers=2"):
        evaluate([upstream], cfg=cfg, progress=Listener())
    cfg["superb"]["sd"]["num_speakers"] = 2
    path = tmp_path / "mix" / "wav" / "train" / "train3.wav"
    soundfile.write(path, soundfile.read(path)[0], 8_000)
    with pytest.raises(SpeechFTError, match=r"train3.wav has 8000 samples a second"):
        evaluate([upstream], cfg=cfg, progress=Listener())
