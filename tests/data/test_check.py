"""What is wrong with a corpus is found before training: counted, listed, and left out only when told."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from layouts import noise

from speechft.cli.main import main
from speechft.config.compose import compose
from speechft.data import headers
from speechft.data.check import load_corpus
from speechft.data.headers import Headers
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.base import label_of
from speechft.tasks.build import build_task
from speechft.train.check import check
from speechft.train.finetune import finetune
from speechft.upstreams.load import load_upstream


def _table(path, rows):
    known = ("id", "path", "text", "sentence", "speaker", "start", "end")
    names = [name for name in known if any(name in row for row in rows)]
    lines = ["\t".join(names)] + ["\t".join(str(row.get(name, "")) for name in names) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return [{"kind": "tsv", "path": str(path)}]


@pytest.fixture
def corpus(tmp_path):
    """Eight good utterances to train on, two for dev."""
    for number in range(10):
        noise(tmp_path / f"{number}.wav", seconds=1.0)
    rows = [{"id": f"u{number}", "path": f"{number}.wav", "text": "ONE TWO", "speaker": "s"} for number in range(10)]
    return {"train": rows[:8], "dev": rows[8:], "folder": tmp_path}


def _data(corpus, **others):
    folder = corpus["folder"]
    sources = {name: _table(folder / f"{name}.tsv", corpus[name]) for name in ("train", "dev")}
    return {**sources, "batch_seconds": None, **others}


def _found(data, **others):
    loaded = load_corpus(data, **others)
    return {(one.split, one.id): one.kind for one in loaded.problems}, loaded


def _no_words(cuts):
    """What a task that reads transcripts has to say; it needs no upstream for that."""
    found = []
    for cut in cuts:
        try:
            label_of(cut, "text")
        except SpeechFTError as error:
            found.append((cut.id, error.what))
    return found


def test_a_good_corpus_and_its_summary(corpus):
    shutil.copy(corpus["folder"] / "0.wav", corpus["folder"] / "more.wav")  # in no table
    noise(corpus["folder"] / "1.wav", seconds=3.0, rate=44_100, channels=2)
    found, loaded = _found(_data(corpus, batch_seconds=2.0))
    assert not found and len(loaded.train) == 8 and len(loaded.dev) == 2
    train = loaded.summary["train"]
    assert train["utterances"] == 8 and train["hours"] == pytest.approx(10 / 3600, abs=1e-3)
    assert (train["shortest"], train["median"], train["longest"]) == (1.0, 1.0, 3.0)
    assert train["rates"] == {"16000": 7, "44100": 1} and train["speakers"] == 1 and train["longer_than_a_batch"] == 1
    line = loaded.lines()[0]
    assert (
        "train: 8 utterances" in line and "16 kHz (7) and 44.1 kHz (1)" in line and "1 longer than data.batch" in line
    )


def test_everything_bad_is_found_and_nothing_else(corpus):
    folder = corpus["folder"]
    (folder / "0.wav").unlink()
    (folder / "1.wav").write_text("no audio")
    soundfile.write(folder / "2.wav", np.zeros(0), 16_000)
    corpus["train"][3] |= {"start": 0.5, "end": 0.4}
    noise(folder / "4.wav", seconds=0.05)
    noise(folder / "5.wav", seconds=61.0, rate=8000)
    corpus["train"][6] |= {"text": "  "}
    shutil.copy(folder / "8.wav", folder / "7.wav")
    wanted = ["missing", "unreadable", "empty", "outside", "short", "long", "label", "duplicate"]
    with pytest.raises(SpeechFTError, match=r"0.wav is missing, and 7 more cannot be used") as nothing_left:
        load_corpus(_data(corpus), _no_words)
    assert "skip_bad" not in nothing_left.value.mend
    noise(folder / "good.wav")
    corpus["train"].append({"id": "good", "path": "good.wav", "text": "ONE"})
    found, loaded = _found(_data(corpus), check_labels=_no_words)
    assert found == {("train", f"u{number}"): kind for number, kind in enumerate(wanted)}
    assert list(loaded.train.ids) == ["good"] and len(loaded.dev) == 2
    reasons = {one.kind: one.reason for one in loaded.problems}
    assert reasons["missing"].endswith("0.wav is missing") and "0.050 s short" in reasons["short"]
    assert reasons["duplicate"] == "utterance u7 of train is the same audio as u8 of dev"
    assert loaded.lines()[-1].startswith("bad: 1 missing, 1 unreadable, 1 empty, 1 outside, 1 short, 1 long, 1 label")


def test_what_most_have_in_common_is_said_first(corpus):
    """A task whose label nobody has: not the one missing file is the news."""
    (corpus["folder"] / "0.wav").unlink()
    for row in corpus["train"][1:]:
        row["text"] = ""
    with pytest.raises(SpeechFTError, match=r"^utterance u1 has an empty transcript, and .* \(1 missing, \d+ label\)"):
        load_corpus(_data(corpus), _no_words)


def test_limits_can_be_moved_and_switched_off(corpus):
    noise(corpus["folder"] / "0.wav", seconds=0.05)
    shutil.copy(corpus["folder"] / "8.wav", corpus["folder"] / "7.wav")
    assert len(_found(_data(corpus))[0]) == 2
    assert not _found(_data(corpus, checks={"shortest": None, "duplicates": False}))[0]
    with pytest.raises(SpeechFTError, match=r"u1 of train is 1.0 s long, and .* more .*9 long"):
        load_corpus(_data(corpus, checks={"shortest": 0.01, "longest": 0.5, "duplicates": False}))
    with pytest.raises(UsageError, match="unknown check of data: longer; known: shortest, longest, duplicates, decode"):
        load_corpus(_data(corpus, checks={"longer": 1}))


def test_audio_that_breaks_off_is_found_by_decoding(corpus):
    path = noise(corpus["folder"] / "0.flac", seconds=1.0)
    path.write_bytes(path.read_bytes()[:4000])  # the header is whole
    corpus["train"][0]["path"] = "0.flac"
    assert not _found(_data(corpus))[0]
    found, loaded = _found(_data(corpus, checks={"decode": True}))
    assert found == {("train", "u0"): "unreadable"} and "0.flac cannot be read" in loaded.problems[0].reason


def test_duplicates_by_id_by_part_and_by_content(corpus):
    corpus["train"][0]["id"] = "u8"  # another file
    corpus["train"][1]["path"] = "9.wav"  # the same file
    corpus["train"][2] |= {"path": "8.wav", "start": 0.0, "end": 0.5}
    corpus["dev"][0] |= {"start": 0.5, "end": 1.0}  # parts of one file that do not overlap
    found, loaded = _found(_data(corpus))
    assert found == {("train", "u8"): "duplicate", ("train", "u1"): "duplicate"}
    assert "u8" not in loaded.train.ids and "u8" in loaded.dev.ids  # dev stays as it was
    noise(corpus["folder"] / "3.wav")
    assert len(_found(_data(corpus))[0]) == 2  # files of one size are not the same for that


def test_all_speeds_of_a_bad_utterance_go(corpus):
    shutil.copy(corpus["folder"] / "8.wav", corpus["folder"] / "7.wav")
    data = _data(corpus)
    data["train"][0]["speeds"] = [0.9, 1.0]
    found, loaded = _found(data)
    assert found == {("train", "u7"): "duplicate"} and len(loaded.train) == 14
    assert not any(name.startswith("u7") for name in loaded.train.ids)


def test_everything_that_is_missing_in_one_line(tmp_path):
    (tmp_path / "train-clean-100").mkdir()
    data = {
        "train": [{"kind": "librispeech", "root": str(tmp_path), "split": "train-clean-360"},
                  {"kind": "tsv", "path": "/nowhere/table.tsv"}],
        "dev": [{"kind": "librispeech", "root": str(tmp_path), "split": "dev-clean"}],
    }  # fmt: skip
    with pytest.raises(SpeechFTError) as caught:
        load_corpus(data)
    assert all(word in str(caught.value) for word in ("no train-clean-360", "table.tsv is missing", "no dev-clean"))


# labels, as the task sees them


def test_an_empty_transcript_is_bad_for_the_tasks_that_read_it(corpus, upstream_folder):
    """Speakers are learnt without words, so nothing is asked of the transcripts."""
    upstream = load_upstream({"name": str(upstream_folder)})
    corpus["train"][2] |= {"text": " "}
    corpus["train"][3] |= {"speaker": "t"}
    words, speakers = (build_task(one) for one in ({"kind": "ctc", "units": "characters"},
                                                   {"kind": "classification", "labels": "speaker"}))  # fmt: skip
    found, loaded = _found(_data(corpus), check_labels=lambda cuts: words.check(upstream, cuts))
    assert found == {("train", "u2"): "label"}
    assert loaded.problems[0].reason == "utterance u2 has an empty transcript"
    found, loaded = _found(_data(corpus), check_labels=lambda cuts: speakers.check(upstream, cuts))
    assert not found and len(loaded.train) == 8


def test_the_summary_describes_the_labels(corpus, upstream_folder, capsys):
    corpus["train"][2] |= {"text": "ONE TWO%"}
    corpus["train"][3] |= {"speaker": "t"}
    sources = _data(corpus)
    words = [f"upstream.name={upstream_folder}", "data=tsv", f"data.table={sources['train'][0]['path']}",
             "data.train_speakers=null", "data.dev=null"]  # fmt: skip
    assert main(["train", "--check", *words, "task=asr"]) == 0
    assert "characters: 7 different; rare: '%' 1x (as in u2)\n" in capsys.readouterr().out  # O N E | T W %
    assert main(["train", "--check", *words, "task=sid"]) == 0
    assert "speaker: 2 classes of 1 to 7 utterances\n" in capsys.readouterr().out


def test_labels_longer_than_ctc_allows(corpus, upstream_folder):
    """The bound, from the definition: a frame for each unit, and one more between equal neighbours."""
    upstream = load_upstream(upstream_folder)
    frames = int(upstream.frame_counts(torch.tensor([16_000]))[0])
    corpus["train"][0]["text"] = "AB" * (frames // 2) + "A" * (frames % 2)  # as many units as frames
    corpus["train"][1]["text"] = "AB" * (frames // 2) + "A" * (frames % 2) + "C"
    corpus["train"][2]["text"] = "A" * (frames // 2 + 1)  # twice as many less one
    corpus["train"][3]["text"] = "A" * (frames // 2 + 2)
    possible = frames >= 2 * (frames // 2 + 1) - 1
    task = build_task({"kind": "ctc", "units": "characters"})
    found, _ = _found(_data(corpus), check_labels=lambda cuts: task.check(upstream, cuts))
    wanted = {("train", "u1"), ("train", "u3")} | (set() if possible else {("train", "u2")})
    assert set(found) == wanted and set(found.values()) == {"label"}
    # and CTC's own loss agrees: infinite where it cannot
    logits = torch.zeros(frames, 4, 5).log_softmax(-1)
    lengths = torch.tensor([len(corpus["train"][number]["text"]) for number in range(4)])
    targets = torch.zeros(4, int(lengths.max()), dtype=torch.long)
    for number in range(4):
        targets[number, : lengths[number]] = torch.tensor([ord(c) - 64 for c in corpus["train"][number]["text"]])
    losses = torch.nn.functional.ctc_loss(logits, targets, torch.full((4,), frames), lengths, reduction="none")
    assert {("train", f"u{number}") for number in range(4) if torch.isinf(losses[number])} == wanted


def test_missing_labels_and_words_outside_the_lexicon(corpus, upstream_folder, librispeech):
    upstream = load_upstream(upstream_folder)
    corpus["train"][0]["text"] = "ONE ELEPHANT"
    data = _data(corpus)
    task = build_task({"kind": "ctc", "units": "phones", "lexicon": str(librispeech / "lexicon.txt")})
    found, loaded = _found(data, check_labels=lambda cuts: task.check(upstream, cuts))
    assert found == {("train", "u0"): "label"} and "'ELEPHANT', which the lexicon lacks" in loaded.problems[0].reason
    task = build_task({"kind": "ctc", "units": "phones"})
    with pytest.raises(SpeechFTError, match="utterance u0 has no phones, and 9 more") as error:
        _found(data, check_labels=lambda cuts: task.check(upstream, cuts))
    assert "a column named phones" in str(error.value.mend)


def test_a_transcript_by_another_name_and_no_speakers(corpus, upstream_folder):
    for part in (corpus["train"], corpus["dev"]):
        for row in part:
            row["sentence"] = row.pop("text")
            row.pop("speaker", None)
    upstream, task = load_upstream(upstream_folder), build_task({"kind": "ctc", "units": "characters"})
    data = _data(corpus)
    with pytest.raises(SpeechFTError, match="utterance u0 has no transcript, and 9 more") as error:
        _found(data, check_labels=lambda cuts: task.check(upstream, cuts))
    assert "'data.rename={sentence: text}'" in str(error.value.mend)
    for source in data["train"] + data["dev"]:
        source["rename"] = {"sentence": "text"}
    _, loaded = _found(data, check_labels=lambda cuts: task.check(upstream, cuts))
    assert not loaded.problems and all(line.endswith("speakers not known") for line in loaded.lines())


# the command


def test_what_dev_has_and_train_lacks(corpus, upstream_folder, tmp_path, capsys):
    """A class or a character of dev alone is said by the check, as training would."""

    rows = [dict(row, speaker=f"s{number % 4}") for number, row in enumerate(corpus["train"] + corpus["dev"])]
    for number, row in enumerate(rows):
        noise(tmp_path / row["path"], seconds=1.0 + number / 10)
    _table(tmp_path / "all.tsv", rows)
    words = ["task=sid", "data=tsv", f"data.table={tmp_path / 'all.tsv'}", f"upstream={upstream_folder}",
             "data.train_speakers=[0.0,0.8]", "data.dev_speakers=[0.8,1.0]"]  # fmt: skip
    assert main(["train", "--check", *words]) == 1
    failure = capsys.readouterr().err
    assert "of dev utterance u" in failure and "never occurs in the training set" in failure
    assert "data.split_by=utterances" in failure and len(failure.splitlines()) == 1
    assert main(["train", "--check", *words, "data.split_by=utterances"]) == 0
    assert "bad: none" in capsys.readouterr().out
    assert main(["train", "--check", *words, "data.train_speakers=[0.0,1.0]", "data.dev=null", "task.labels=text"]) == 1
    assert "every utterance of the training set has the text 'ONE TWO'" in capsys.readouterr().err

    corpus["dev"][1]["text"] = "ÉTÉ"
    task, upstream = build_task({"kind": "ctc", "units": "characters"}), load_upstream({"name": str(upstream_folder)})
    found, loaded = _found(
        _data(corpus), check_labels=lambda cuts: task.check(upstream, cuts), check_splits=task.check_splits
    )
    assert found == {("dev", "u9"): "label"}
    assert loaded.problems[0].reason.endswith("has characters that the training set lacks: ['É']")


def _broken(librispeech, folder):
    """One unreadable file and one utterance that dev has too."""
    shutil.copytree(librispeech, folder)
    first, second = sorted((folder / "train-clean-100").rglob("*.flac"))[:2]
    first.write_bytes(b"no audio")
    shutil.copy(next((folder / "dev-clean").rglob("*.flac")), second)
    return first.stem, second.stem


def test_bad_items_stop_training_are_listed_and_skipped_only_when_told(train_words, librispeech, tmp_path):
    names = _broken(librispeech, tmp_path / "corpus")
    words = [*(word for word in train_words if not word.startswith("data.root")), f"data.root={tmp_path / 'corpus'}",
             "trainer.steps=2"]  # fmt: skip
    said = r"cannot be read.* and 1 more .*1 unreadable, 1 duplicate.*skip_bad=true"
    with pytest.raises(SpeechFTError, match=said) as caught:
        finetune(words, tmp_path / "run")
    listing = Path(str(caught.value).split("listed in ")[1].split(")")[0])
    rows = [line.split("\t") for line in listing.read_text().splitlines()]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("train", names[0], "unreadable"), ("train", names[1], "duplicate")
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()
    run = finetune([*words, "data.skip_bad=true"], tmp_path / "run")
    assert [line.split("\t")[1] for line in (run.folder / "skipped.tsv").read_text().splitlines()] == list(names)


def test_the_check_alone(train_words, librispeech, tmp_path, capsys):

    names = _broken(librispeech, tmp_path / "corpus")
    words = [*(word for word in train_words if not word.startswith("data.root")), f"data.root={tmp_path / 'corpus'}"]
    assert main(["train", "--check", "--json", "--out", str(tmp_path / "out"), *words]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["bad"] == {"unreadable": 1, "duplicate": 1} and found["splits"]["train"]["utterances"] == 22
    assert [line.split("\t")[1] for line in (tmp_path / "out" / "bad.tsv").read_text().splitlines()] == list(names)
    assert main(["train", "--check", *train_words]) == 0
    said = capsys.readouterr().out
    assert "train: 24 utterances" in said and "dev: 8 utterances" in said and "bad: none" in said
    assert check(train_words)["listing"] is None


def test_the_check_names_the_first_that_are_bad(train_words, librispeech, tmp_path, capsys):
    names = _broken(librispeech, tmp_path / "corpus")
    words = [*(word for word in train_words if not word.startswith("data.root")), f"data.root={tmp_path / 'corpus'}"]
    assert main(["train", "--check", *words]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("bad: 1 unreadable, 1 duplicate"))
    assert [line.split(":")[0] for line in lines[place + 1 :]] == [f"  train {name}" for name in names]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trainer.steps=abc", "trainer.steps is 'abc'"), ("seed=x", "seed is 'x'"),
        ("data.batch_size=-1", "batches of"), ("task.head_lr=fast", "task.head_lr is 'fast'"),
        ("strategy.frozen_parts=[nothing]", "nothing"), ("trainer.warmup=2", "warmup"),
    ],
)  # fmt: skip
def test_the_check_refuses_what_training_would(train_words, word, told, capsys):
    assert main(["train", "--check", *train_words, word]) == 2
    failure = capsys.readouterr().err
    assert told in failure and len(failure.splitlines()) == 1
    assert main(["train", *train_words, word]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == failure.strip()


# headers


def test_headers_are_read_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    paths = [noise(tmp_path / f"{number}.wav", seconds=0.1 * (number + 1)) for number in range(20)]
    first = Headers(paths)
    first.read()
    assert [first[path].samples for path in paths] == [1600 * (number + 1) for number in range(20)]
    first.save()
    asked, real = [], headers.audio_info
    monkeypatch.setattr(headers, "audio_info", lambda path: (asked.append(str(path)), real(path))[1])
    noise(paths[3], seconds=5.0)
    noise(paths[4], seconds=0.5)  # the same size
    os.utime(paths[4], ns=(time.time_ns(), time.time_ns() + 10**9))
    paths[5].unlink()
    again = Headers(paths)
    again.read()
    assert sorted(asked) == sorted(map(str, (paths[3], paths[4])))
    assert again[paths[3]].samples == 80_000 and again[paths[19]].samples == 32_000
    with pytest.raises(SpeechFTError, match=r"5.wav is missing"):
        again[paths[5]]


def test_a_damaged_cache_is_made_again(tmp_path):
    path = noise(tmp_path / "a.wav")
    first = Headers([path])
    first.read()
    first.save()
    for damage in ("{", "[]"):
        first._file.write_text(damage)
        again = Headers([path])
        again.read()
        assert again[path].samples == 4800


@pytest.mark.parametrize("name", ["aishell3", "common_voice", "crema_d", "fluent_commands", "huggingface", "iemocap",
                                  "lhotse", "lhotse_recipe", "librispeech", "snips", "speech_commands", "synthetic",
                                  "tedlium3", "tsv", "voxceleb1"])  # fmt: skip
def test_every_configuration_names_what_its_readers_take(name):
    """Whatever stands in train and dev is an argument of the reader, or of every kind."""
    import inspect

    from speechft.config.locate import config_dir, group_names
    from speechft.data.corpora import KINDS, Options

    assert name in group_names("data") and not any(one.startswith("_") for one in group_names("data"))
    given = {"root": "/x", "table": "/x", "name": "x", "recipe": "x"}
    text = (config_dir() / "data" / f"{name}.yaml").read_text()
    words = [f"data.{key}={value}" for key, value in given.items() if f"\n{key}: ???" in text]
    data = compose("train", [f"data={name}", *words])["data"]
    for source in (*data["train"], *data["dev"]):
        takes = inspect.signature(KINDS[source["kind"]]).parameters
        assert set(source) - {"kind", *Options.NAMES} <= set(takes)
    assert {"skip_bad", "checks", "batch_seconds", "batch_size", "buckets", "workers"} <= data.keys()
    assert text.startswith("# speechft train ") and f"data={name}" in text.splitlines()[0]


def test_an_utterance_twice_in_one_split_is_listed_and_the_first_kept(corpus):
    corpus["train"].append(dict(corpus["train"][2]))
    found, loaded = _found(_data(corpus))
    assert found == {("train", "u2 (again)"): "duplicate"} and len(loaded.train) == 8
    assert loaded.problems[0].reason.startswith("utterance u2 is in the corpus twice (")


def test_two_columns_of_one_name_are_refused(corpus):
    (corpus["folder"] / "twice.tsv").write_text("id\tpath\ttext\ttext\nu0\t0.wav\tONE\tWRONG\n")
    with pytest.raises(SpeechFTError, match=r"twice.tsv has two columns text; give each a name of its own"):
        load_corpus({"train": [{"kind": "tsv", "path": str(corpus["folder"] / "twice.tsv")}]})


def test_the_check_refuses_an_upstream_that_cannot_train(train_words, capsys):
    words = [word for word in train_words if not word.startswith("upstream.")]
    for check_alone in (["--check"], []):
        assert main(["train", *check_alone, *words, "upstream=fbank"]) == 2
        assert "fbank cannot be fine-tuned; choose a pre-trained upstream" in capsys.readouterr().err
