"""What each task asks of the user, and how random reading is made repeatable."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from small import superb_settings
from tiny_corpora import RECIPES, make_librispeech, make_speech_commands, make_voxceleb
from tiny_snips import make_snips

from speechft.errors import SpeechFTError, UsageError
from speechft.superb import compat
from speechft.superb.quiet import quiet
from speechft.superb.settings import compose
from speechft.superb.tasks import NAMES, get_task


def settings_for(name: str, **changes) -> dict:
    return {**superb_settings()["superb"][name], **RECIPES[name], **changes}


def build(task, settings, data, folder):
    """The expert, settled."""
    from importlib import import_module

    compat.install()
    with quiet(folder / "log"):
        module = import_module(f"s3prl.downstream.{task.folder}.expert")
        config = task.config(settings, data, folder)
        expert = module.DownstreamExpert(upstream_dim=8, upstream_rate=320, expdir=str(folder), **config)
        task.settle(expert)
    return expert


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("pr", ["data.librispeech", "data.lexicon"]),
        ("sid", ["data.voxceleb1", "data.iden_split"]),
        ("ks", ["data.speech_commands", "data.speech_commands_test"]),
        ("asr", ["data.librispeech"]),
        ("sf", ["data.snips"]),
        ("asv", ["data.voxceleb1", "data.voxceleb1_trials"]),
        ("sd", ["data.librimix"]),
        ("ic", ["data.fluent_commands"]),
        ("er", ["data.iemocap"]),
        ("qbe", ["data.quesst14"]),
        ("se", ["data.voicebank"]),
        ("ss", ["data.libri2mix"]),
    ],
)
def test_all_missing_files_in_one_line(name, keys, tmp_path):
    task = get_task(name)
    for data in ({}, {key.removeprefix("data."): str(tmp_path / "nowhere") for key in keys}):
        with pytest.raises(SpeechFTError) as error:
            task.check(data, settings_for(name))
        message = str(error.value)
        assert "\n" not in message and all(key in message for key in keys)
        assert all(what.split(",")[0] in message for what in task.needs.values())


def test_what_is_missing_inside(tmp_path, corpora):
    data = dict(corpora.data)
    with pytest.raises(
        SpeechFTError,
        match=r"x has no yes/\*.*_background_noise_/\*.*x has no yes/\*.*_silence_/\*",
    ):
        (tmp_path / "x").mkdir()
        one = {"speech_commands": str(tmp_path / "x"), "speech_commands_test": str(tmp_path / "x")}
        get_task("ks").check(one, settings_for("ks"))
    with pytest.raises(SpeechFTError, match=r"train-other does not exist.*dev-other does not exist"):
        splits = {"librispeech_train": "train-other", "librispeech_dev": ["dev-clean", "dev-other"]}
        get_task("pr").check({**data, **splits}, settings_for("pr"))
    make_voxceleb(tmp_path / "vox")
    (tmp_path / "vox" / "dev" / "wav" / "id10001" / "session0" / "00000.wav").unlink()
    with pytest.raises(SpeechFTError, match=r"1 of the 24 files .* \(id10001/session0/00000.wav\)"):
        get_task("sid").check({"voxceleb1": str(tmp_path / "vox")}, settings_for("sid"))
    for name in NAMES:
        get_task(name).check(data, settings_for(name))


def test_one_line_has_what_is_missing_and_what_is_missing_inside_the_rest(tmp_path, corpora):
    data = {**corpora.data, "librispeech_dev": "dev-other", "lexicon": None}
    with pytest.raises(SpeechFTError, match=r"data.lexicon is not set.*dev-other does not exist"):
        get_task("pr").check(data, settings_for("pr"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeechFTError, match=r"data.iden_split=\S*nowhere does not exist.*empty has no \*/wav folder"):
        data = {"voxceleb1": str(tmp_path / "empty"), "iden_split": str(tmp_path / "nowhere")}
        get_task("sid").check(data, settings_for("sid"))
    with pytest.raises(SpeechFTError, match=r"voxceleb1_trials is not set.*empty/dev/wav does not exist"):
        get_task("asv").check({"voxceleb1": str(tmp_path / "empty")}, settings_for("asv"))
    with pytest.raises(SpeechFTError, match=r"speech_commands_test is not set.*empty has no yes/\*"):
        get_task("ks").check({"speech_commands": str(tmp_path / "empty")}, settings_for("ks"))


def test_audio_that_transcripts_name_is_missed_before_anything_runs(tmp_path, corpora):
    make_librispeech(tmp_path / "ls")
    data = {"librispeech": str(tmp_path / "ls"), "lexicon": corpora.data["lexicon"]}
    gone = [path for name in ("0/19-0-t000", "2/19-2-t003") for path in (tmp_path / "ls").rglob(f"{name}.flac")]
    gone += sorted((tmp_path / "ls" / "dev-clean").rglob("*.flac"))
    for path in gone:
        path.unlink()
    (tmp_path / "ls" / "test-clean" / "19" / "0" / "19-0.trans.txt").unlink()
    for name in ("pr", "asr"):
        with pytest.raises(SpeechFTError) as error:
            get_task(name).check(data, settings_for(name))
        assert "2 of the 12 utterances of" in str(error.value) and "(19-0-t000, 19-2-t003)" in str(error.value)
        assert "4 of the 4 utterances of" in str(error.value) and "test-clean holds no *.trans.txt" in str(error.value)


def test_folders_for_files_and_lists_that_are_none(tmp_path, corpora):
    data = corpora.data
    for name, key in (("pr", "lexicon"), ("sid", "iden_split"), ("asv", "voxceleb1_trials")):
        with pytest.raises(SpeechFTError, match=f"data.{key}={tmp_path} is no file"):
            get_task(name).check({**data, key: str(tmp_path)}, settings_for(name))
    with pytest.raises(SpeechFTError, match=r"data.speech_commands=.*lexicon.txt is no folder .*test=.* is no folder"):
        get_task("ks").check(
            dict.fromkeys(("speech_commands", "speech_commands_test"), data["lexicon"]), settings_for("ks")
        )
    listing = tmp_path / "list.txt"
    for content, match in (
        (b"\xff\xfe", "should be VoxCeleb1's iden_split.txt, .*cannot be read"),
        (b"", "lacks a part of 1"),
        (b"1\n", "has a line '1'"),
    ):
        listing.write_bytes(content)
        with pytest.raises(SpeechFTError, match=rf"list.txt {match}"):
            get_task("sid").check({**data, "iden_split": str(listing)}, settings_for("sid"))
    listing.write_bytes(b"\xff\xfe")
    with pytest.raises(SpeechFTError, match=r"list.txt should be VoxCeleb1's cleaned trial list, .*cannot be read"):
        get_task("asv").check({**data, "voxceleb1_trials": str(listing)}, settings_for("asv"))


def test_snips_without_audio(tmp_path):
    root = make_snips(tmp_path / "snips") or tmp_path / "snips"
    for path in sorted((root / "valid").rglob("*.wav")):
        path.unlink()
    with pytest.raises(SpeechFTError, match=r"snips has no \*\.wav under valid \(Audio SNIPS"):
        get_task("sf").check({"snips": str(root)}, settings_for("sf"))


def test_snips_without_some_audio(tmp_path, capsys):
    root = make_snips(tmp_path / "snips") or tmp_path / "snips"
    settings = {**settings_for("sf"), "train_speakers": ["Ivy", "Joey"], "dev_speakers": ["Amy"],
                "test_speakers": ["Brian"]}  # fmt: skip
    get_task("sf").check({"snips": str(root)}, settings)
    assert capsys.readouterr().err == ""
    for name in ("Brian-snips-test-1", "Nobody-snips-test-1"):  # Nobody is not among the speakers
        (root / "test" / f"{name}.wav").unlink()
    get_task("sf").check({"snips": str(root)}, settings)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"sf: {root}/test has no audio of 1 of all.iob.snips.txt's utterances (Brian-snips-test-1); "
                    "they are left out"]  # fmt: skip


def test_wrong_settings():
    with pytest.raises(UsageError, match="unknown SUPERB task 'xy'; known: pr, asr, ks, qbe"):
        get_task("xy")
    with pytest.raises(UsageError, match=r"superb\.ks has no speed"):
        get_task("ks").check({}, settings_for("ks", speed=1))
    with pytest.raises(UsageError, match=r"superb\.ks\.steps=0"):
        get_task("ks").check({}, settings_for("ks", steps=0))


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("sid", "steps", "many"), ("sid", "steps", 1.5), ("sid", "steps", None), ("sid", "crops", "all"),
        ("sid", "project_dim", 0), ("sid", "crop_seconds", 0), ("sid", "crop_seconds", float("nan")), ("pr", "clip", 0),
        ("pr", "optimizer", "Foo"), ("asv", "min_seconds", -1), ("asr", "rnn_dims", "wide"), ("asr", "dropout", "half"),
        ("sd", "chunk_frames", 0), ("qbe", "layers", ["a"]), ("qbe", "layers", []), ("qbe", "workers", 0),
        ("qbe", "distance", "Foo"), ("er", "folds", ["a"]), ("er", "folds", []), ("er", "valid_ratio", "some"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_named(task, key, value, corpora):
    get_task(task).check(corpora.data, settings_for(task))
    with pytest.raises(UsageError, match=rf"superb\.{task}\.{key}="):
        get_task(task).check(corpora.data, {**settings_for(task), key: value})


def test_a_whole_number_may_be_written_otherwise(corpora):
    for task, key, value in (("sid", "steps", 1e3), ("er", "folds", 3), ("qbe", "layers", 2), ("sid", "crops", None)):
        get_task(task).check(corpora.data, {**settings_for(task), key: value})


def test_configs_are_the_official_recipes(tmp_path, corpora):
    recipes = superb_settings()["superb"]
    assert list(recipes) == list(NAMES)
    official = {
        "pr": (100_000, 16, 2, 1e-2), "sid": (200_000, 8, 4, 1e-4), "ks": (200_000, 32, 1, 1e-4),
        "asr": (200_000, 32, 1, 1e-4), "sf": (200_000, 32, 1, 1e-4),
        "ic": (200_000, 32, 1, 1e-4), "er": (30_000, 4, 8, 1e-4),
    }  # fmt: skip
    for name, (steps, batch, accumulate, rate) in official.items():
        config = get_task(name).config(recipes[name], corpora.data, tmp_path)
        assert config["runner"]["total_steps"] == steps
        assert config["runner"]["gradient_accumulate_steps"] == accumulate
        assert config["runner"]["gradient_clipping"] == 1
        assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": rate}
        assert recipes[name]["batch_size"] == batch
    changed = compose(["superb.sid.lr=1e-2", "superb.pr.steps=500", "data.voxceleb1=/vox"])
    assert (changed["superb"]["sid"]["lr"], changed["superb"]["pr"]["steps"]) == (1e-2, 500)
    assert changed["data"]["voxceleb1"] == "/vox"
    with pytest.raises(UsageError, match=r"unknown key 'superb\.sid\.rate'; did you mean superb\.sid\.lr"):
        compose(["superb.sid.rate=1"])


def test_draws_of_silence(tmp_path):
    """Each long noise file gives so many different seconds, the same in every run; nothing else is drawn."""
    make_speech_commands(tmp_path / "sc", tmp_path / "test", noise_seconds=3.0)
    data = {"speech_commands": str(tmp_path / "sc"), "speech_commands_test": str(tmp_path / "test")}
    task = get_task("ks")
    expert = build(task, settings_for("ks"), data, tmp_path)
    split = task.split(expert, "train", crops=5)
    drawn = [item for item in split.items if item.random]
    assert {item.path.parent.name for item in drawn} == {"_background_noise_"} and len(drawn) == 2 * 5
    assert sum(not item.random for item in split.items) == 11 * 4
    state = random.getstate()
    waves = [task.read(expert, "train", item) for item in drawn]
    assert random.getstate() == state
    assert all(len(wave) == 16_000 == item.samples for wave, item in zip(waves, drawn, strict=True))
    assert len({wave.tobytes() for wave in waves}) == 10
    again = [task.read(expert, "train", item) for item in drawn]
    assert all(np.array_equal(one, other) for one, other in zip(waves, again, strict=True))
    # the test set's silence is a file like any other
    assert not any(item.random for item in task.split(expert, "test", crops=5).items)


def test_batches_use_all_draws_of_a_file(tmp_path):
    make_speech_commands(tmp_path / "sc", tmp_path / "test", noise_seconds=2.0)
    data = {"speech_commands": str(tmp_path / "sc"), "speech_commands_test": str(tmp_path / "test")}
    task = get_task("ks")
    expert = build(task, settings_for("ks"), data, tmp_path)
    split = task.split(expert, "train", crops=3)
    batch = task.batches(expert, split, task.loader(expert, "train"))
    files = task.files(expert, "train")
    noise, word = (next(i for i, p in enumerate(files) if ("noise" in p.name) is wanted) for wanted in (True, False))
    counts = Counter(number for _ in range(200) for number in batch([noise, word])[0])
    assert set(counts) == {split.first[word], *range(split.first[noise], split.first[noise] + 3)}
    numbers, (labels, names) = batch([word, noise])
    assert numbers[0] == split.first[word] and labels[1] == 11 and "noise" in names[1]


def test_crops_of_speakers(tmp_path):
    make_voxceleb(tmp_path / "vox", seconds=(0.3, 0.9))
    data = {"voxceleb1": str(tmp_path / "vox")}
    task = get_task("sid")
    with task.environment(tmp_path):
        expert = build(task, settings_for("sid", crop_seconds=0.5), data, tmp_path)
        split = task.split(expert, "train", crops=2)
        long = [item for item in split.items if item.random]
        assert long and len(long) < len(split.items)
        waves = [task.read(expert, "train", item) for item in split.items]
        assert [len(wave) for wave in waves] == [item.samples for item in split.items]
        assert max(len(wave) for wave in waves) == 8_000
        assert not any(item.random for item in task.split(expert, "test", crops=2).items)


def test_lists_do_not_depend_on_the_file_system(tmp_path, corpora, monkeypatch):
    """KS lists folders unsorted; a reversed file system gives the same lists after `settle`."""
    from pathlib import Path

    task, lists = get_task("ks"), []
    plain = Path.iterdir
    for step in (1, -1):
        monkeypatch.setattr(Path, "iterdir", lambda self, s=step: iter(sorted(plain(self))[::s]))
        expert = build(task, settings_for("ks"), corpora.data, tmp_path)
        lists.append([expert.train_dataset.data, expert.train_dataset.sample_weights, expert.test_dataset.data])
    assert lists[0] == lists[1]


def test_speaker_lists_are_not_shared_between_corpora(tmp_path):
    task, found = get_task("sid"), []
    for corpus in ("one", "two"):
        make_voxceleb(tmp_path / corpus)
        with task.environment(tmp_path):
            expert = build(task, settings_for("sid"), {"voxceleb1": str(tmp_path / corpus)}, tmp_path)
        found.append(expert.train_dataset.dataset[0])
    assert "/one/" in found[0] and "/two/" in found[1]


def test_data_identity(tmp_path):
    import os

    from speechft.superb.extract import data_identity

    make_voxceleb(tmp_path / "vox")
    data, task = {"voxceleb1": str(tmp_path / "vox")}, get_task("sid")

    def identity(crops: int = 2, **changes) -> str:
        settings = settings_for("sid", **changes)
        with task.environment(tmp_path):
            expert = build(task, settings, data, tmp_path)
            return data_identity(task, task.split(expert, "train", crops), settings, data)

    first = identity()
    assert identity() == first == identity(crops=9)  # nothing is cropped, so draws do not matter
    assert identity(crop_seconds=0.5) != identity(crop_seconds=0.5, crops=3) != first
    wav = tmp_path / "vox" / "dev" / "wav" / "id10001" / "session0" / "00000.wav"
    os.utime(wav, ns=(1, 1))
    assert identity() != first
    (tmp_path / "vox").rename(tmp_path / "moved")
    data["voxceleb1"] = str(tmp_path / "moved")
    os.utime(tmp_path / "moved" / wav.relative_to(tmp_path / "vox"), ns=(1, 1))
    assert identity() != first


def test_long_batches_are_halved_by_s3prl(tmp_path, corpora):
    """s3prl halves a training batch whose first utterance exceeds 300 000 samples; lengths are all it is shown."""
    from dataclasses import replace

    task = get_task("pr")
    with task.environment(tmp_path):
        expert = build(task, settings_for("pr", batch_size=4), corpora.data, tmp_path)
        split = task.split(expert, "train", crops=1)
        loader = task.loader(expert, "train")
        files = task.files(expert, "train")
        whole, _ = task.batches(expert, split, loader)([0])
        long = replace(split, items=[replace(item, samples=400_000 + item.index) for item in split.items])
        half, (labels, names) = task.batches(expert, long, loader)([0])
    first = [files.index(path) for path, _ in loader.dataset.elements[:4]]
    assert sorted(whole) == sorted(first) and half == sorted(first[:2], reverse=True)  # the longest wave first
    assert names == tuple(split.items[number].path.stem for number in half) and len(labels) == 2


def test_without_a_choice_the_tasks_whose_files_are_given(corpora):
    from speechft.superb.settings import Settings

    def tasks(**data):
        cfg = superb_settings("out=x")
        cfg["data"].update(data)
        return Settings.read(cfg).tasks

    assert tasks(librispeech="/ls") == ("asr",)  # PR wants a lexicon too
    assert tasks(librispeech="/ls", lexicon="/lexicon", fluent_commands="/fsc") == ("pr", "asr", "ic")
    assert set(tasks(**corpora.data)) >= set(NAMES) - {"asv", "sd"}
    with pytest.raises(UsageError, match="no SUPERB task was named and no corpus given; name tasks"):
        tasks()


@pytest.mark.parametrize("task", ["st"])
def test_tasks_that_are_not_supported_say_why(task):
    from speechft.superb.settings import Settings

    with pytest.raises(UsageError, match=f"SUPERB task {task} is not supported: its expert in s3prl"):
        Settings.read({**superb_settings("out=x"), "tasks": task})
