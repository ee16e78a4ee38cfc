"""Corpora of the user's own, as docs/own_corpus.md has them: a table, and a reader in a file."""

import numpy as np
import pytest
import soundfile
from documented import block, commands
from small import tone

from speechft.config.compose import compose
from speechft.data.corpora import find, load_cuts
from speechft.errors import SpeechFTError, UsageError
from speechft.train.check import check
from speechft.train.finetune import finetune

QUICK = ["task.hidden=32", "data.batch_size=2", "data.workers=0", "data.buckets=1", "trainer.steps=2",
         "trainer.device=cpu", "trainer.threads=1"]  # fmt: skip


@pytest.fixture
def tiny(upstream_folder):
    return [f"upstream.source={upstream_folder}", "upstream.name=tiny"]


def _overrides(start):
    (words,) = commands("own_corpus.md", start)
    return [word for word in words if "=" in word]


def test_the_documented_table_is_checked_and_trains(tmp_path, tiny):
    text = block("own_corpus.md", "tsv")
    (tmp_path / "mine.tsv").write_text(text)
    (tmp_path / "wavs").mkdir()
    for number, line in enumerate(text.splitlines()[1:]):
        soundfile.write(tmp_path / line.split("\t")[0], tone(1.5, 200.0 + 50 * number), 44_100)
    looked, trained = _overrides("speechft train --check"), _overrides("speechft train task=asr data=tsv")
    assert looked == trained
    words = [word.replace("mine.tsv", f"{tmp_path}/mine.tsv") for word in trained]
    found = check([*words, *tiny])
    assert found["bad"] == {} and found["splits"]["train"]["utterances"] == 4
    assert finetune([*words, *tiny, *QUICK], tmp_path / "run").finished


@pytest.fixture
def folders(tmp_path):
    """The layout that the page's reader reads."""
    for split, speakers in (("train", ("ann", "bob")), ("dev", ("eve",))):
        for speaker in speakers:
            folder = tmp_path / "mine" / split / speaker
            folder.mkdir(parents=True)
            for number in range(2):
                soundfile.write(
                    folder / f"{speaker}-{number}.wav",
                    tone(1.0, 200.0, seed=len(list(tmp_path.rglob("*.wav")))),
                    16_000,
                )
                (folder / f"{speaker}-{number}.txt").write_text("Good morning\n")
    (tmp_path / "my_reader.py").write_text(block("own_corpus.md"))
    return tmp_path


def test_the_documented_reader_is_short_and_trains(folders, tiny, tmp_path):
    assert len(block("own_corpus.md").splitlines()) < 40
    words = _overrides("speechft train task=asr data=own")
    assert "data.reader=my_reader.py:read" in words
    words = [word.replace("=my_", f"={folders}/my_").replace("/data/mine", f"{folders}/mine") for word in words]
    found = check([*words, *tiny])
    assert [found["splits"][split]["utterances"] for split in ("train", "dev")] == [4, 2] and found["bad"] == {}
    assert finetune([*words, *tiny, *QUICK], tmp_path / "run").finished


def test_an_entry_takes_what_every_entry_takes(folders):
    (entry,) = compose("train", _overrides("speechft train task=asr data=list"))["data"]["train"]
    entry |= {"kind": entry["kind"].replace("my_", f"{folders}/my_"), "root": f"{folders}/mine"}
    assert len(load_cuts([{**entry, "split": ["train", "dev"]}])[0]) == 6
    assert len(load_cuts([{**entry, "limit": 3}])[0]) == 3
    for wrong in (2.5, -1, True):
        with pytest.raises(UsageError, match=f"limit {wrong} of a corpus; give a whole number"):
            load_cuts([{**entry, "limit": wrong}])
    cut = load_cuts([entry])[0][0]
    assert (cut.id, cut.supervisions[0].text, cut.supervisions[0].speaker) == ("ann-0", "GOOD MORNING", "ann")
    assert np.isclose(cut.duration, 1.0)


def test_mistakes_are_explained(folders):
    def entry(name="read", **others):
        return {"kind": f"{folders}/my_reader.py:{name}", "root": f"{folders}/mine", "split": "train", **others}

    for source, kind, message in (
        (entry("raed"), UsageError, r"has no reader 'raed' .*; its readers: read"),
        (entry(fold=1), UsageError, "unexpected keyword argument 'fold'; check the options of this entry"),
        ({**entry(), "kind": "nowhere.py:read"}, UsageError, "no such file"),
        ({**entry(), "kind": "nowhere"}, UsageError, "unknown corpus kind 'nowhere'; known: .*, or your own: path/to/"),
    ):
        with pytest.raises(kind, match=message):
            find([source])
    (folders / "mine" / "train" / "ann" / "ann-0.txt").unlink()
    with pytest.raises(SpeechFTError, match=r"my_reader.py:read fails \(FileNotFoundError: .*ann-0.txt"):
        find([entry()])
    (folders / "my_reader.py").write_text("def read(root, split):\n    return ['a.wav']\n")
    with pytest.raises(UsageError, match=r"gives str; give speechft\.data.readers.base.Utterance"):
        find([entry()])
