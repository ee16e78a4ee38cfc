"""A run's configuration holds from any folder."""

import pytest

from speechft.config.compose import compose
from speechft.errors import SpeechFTError
from speechft.train.finetune import finetune


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "table.tsv").write_text("path\ttext\n")
    (tmp_path / "audio").mkdir()
    (tmp_path / "readers.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_there_becomes_absolute(place):
    data = compose("train", ["data=tsv", "data.table=corpus/table.tsv", "data.audio=audio"])["data"]
    assert data["table"] == data["dev_table"] == str(place / "corpus" / "table.tsv")
    for part in ("train", "dev"):
        (entry,) = data[part]
        assert (entry["path"], entry["audio"]) == (data["table"], str(place / "audio"))
    data = compose("train", ["data=own", "data.reader=readers.py:read", "data.root=corpus"])["data"]
    assert data["reader"] == data["train"][0]["kind"] == f"{place}/readers.py:read"
    assert data["train"][0]["root"] == str(place / "corpus")
    assert compose("train", ["upstream.source=corpus"])["upstream"]["source"] == str(place / "corpus")
    task = compose("train", ["task=pr", "task.lexicon=corpus/table.tsv"])["task"]
    books = "[{features: upstream, upstream: ./corpus, layers: [1]}, {features: voice, path: readers.py}]"
    found = compose("train", ["task=masked_prediction", f"task.codebooks={books}"])["task"]["codebooks"]
    assert (found[0]["upstream"], found[1]["path"]) == (str(place / "corpus"), str(place / "readers.py"))
    assert task["lexicon"] == str(place / "corpus" / "table.tsv")
    assert compose("train", ["task=own", "task.kind=readers.py:Mine"])["task"]["kind"] == f"{place}/readers.py:Mine"


def test_names_and_mistakes_stay_as_they_are(place):
    """`audio` is a column of a set on the hub, `train` a split, whatever folders there are."""
    (place / "train").mkdir()
    (place / "hubert_base").mkdir()
    (place / "synthetic").mkdir()
    data = compose("train", ["data=huggingface", "data.name=someone/corpus"])["data"]
    assert data["train"][0]["audio"] == "audio" and data["train"][0]["split"] == "train"
    assert compose("train", ["data=librispeech", "data.root=nowhere"])["data"]["root"] == "nowhere"
    assert compose("train", ["upstream.source=hubert_base"])["upstream"]["source"] == "hubert_base"
    assert compose("train", ["task=pr", "task.lexicon=synthetic"])["task"]["lexicon"] == "synthetic"


def test_a_run_goes_on_from_another_folder(train_words, tmp_path, monkeypatch, librispeech):
    (tmp_path / "corpus").symlink_to(librispeech)
    words = [word for word in train_words if not word.startswith("data.root=")]
    monkeypatch.chdir(tmp_path)
    done = finetune([*words, "data.root=corpus", "trainer.steps=2"], tmp_path / "run", latest=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = finetune([*words, "data.root=../corpus", "trainer.steps=2"], tmp_path / "run", latest=False)
    assert again.finetuned == done.finetuned
    with pytest.raises(SpeechFTError, match="configuration"):
        finetune([*words, "data.root=../corpus", "trainer.steps=3"], tmp_path / "run", latest=False)
