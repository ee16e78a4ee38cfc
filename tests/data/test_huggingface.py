"""Data sets in the real formats on the disk, written by `datasets` itself."""

import sys

import numpy as np
import pytest
import soundfile
from layouts import noise

from speechft.data.check import load_corpus
from speechft.data.corpora import load_cuts
from speechft.data.loader import read_cut
from speechft.errors import MissingExtraError, SpeechFTError


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'speechft\[datasets\]'"):
        load_cuts([{"kind": "huggingface", "name": "x", "split": "train"}])


def _data_set(columns, **features):
    """Rows with undecoded audio; made from Arrow, because `datasets` itself wants torchcodec to take audio in."""
    datasets = pytest.importorskip("datasets")
    import pyarrow

    kinds = {"audio": datasets.Audio.pa_type}
    table = pyarrow.table({name: pyarrow.array(values, kinds.get(name)) for name, values in columns.items()})
    info = datasets.DatasetInfo(features=datasets.Features(audio=datasets.Audio(), **features))
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=info)


@pytest.fixture
def saved(tmp_path):
    """`save_to_disk`, audio inside, a class label, a speaker under another name."""
    datasets = pytest.importorskip("datasets")
    paths = [noise(tmp_path / "wav" / f"{rate}.flac", rate=rate) for rate in (16_000, 8000, 44_100)]
    columns = {
        "audio": [{"bytes": path.read_bytes(), "path": path.name} for path in paths], "sentence": ["A", "B", "C"],
        "speaker_id": [7, 8, 7], "emotion": [0, 1, 0],
    }  # fmt: skip
    text, whole = datasets.Value("string"), datasets.Value("int64")
    data = _data_set(columns, sentence=text, speaker_id=whole, emotion=datasets.ClassLabel(names=["ang", "sad"]))
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved", paths


def test_a_saved_data_set(saved):
    folder, paths = saved
    source = {"kind": "huggingface", "name": str(folder), "split": "train", "text": "sentence",
              "rename": {"speaker_id": "speaker"}}  # fmt: skip
    for path in (None, *paths):  # at the second time all is in the cache
        cuts, _ = load_cuts([source])
        assert [cut.supervisions[0].text for cut in cuts] == ["A", "B", "C"]
        assert [cut.supervisions[0].speaker for cut in cuts] == ["7", "8", "7"]
        assert [cut.supervisions[0].custom["emotion"] for cut in cuts] == ["ang", "sad", "ang"]
        if path is not None:
            path.unlink()
    first = next(iter(cuts))
    samples, _ = soundfile.read(first.recording.sources[0].source, dtype="float32")
    assert np.array_equal(read_cut(first).numpy(), samples)
    with pytest.raises(SpeechFTError, match="has no split dev; its splits: train"):
        load_cuts([{**source, "split": "dev"}])
    with pytest.raises(SpeechFTError, match="has no column sound; its columns: audio, sentence"):
        load_cuts([{**source, "audio": "sound"}])
    with pytest.raises(SpeechFTError, match="holds no audio"):
        load_cuts([{**source, "audio": "sentence", "text": None}])


def test_rows_of_different_splits_are_different_utterances(tmp_path):
    """Without a column `id` each is called after its split and number; slices as `load_dataset` has them."""
    datasets = pytest.importorskip("datasets")
    splits = {}
    for split, seed in (("train", 0), ("validation", 1)):
        paths = []
        for number in range(4):
            paths.append(tmp_path / f"{split}{number}.wav")
            soundfile.write(paths[-1], np.random.default_rng([seed, number]).normal(0, 0.1, 8000), 16_000)
        columns = {"audio": [{"bytes": path.read_bytes(), "path": None} for path in paths], "text": list("ABCD")}
        splits[split] = _data_set(columns, text=datasets.Value("string"))
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    source = {"kind": "huggingface", "name": str(tmp_path / "saved")}
    data = {"train": [{**source, "split": "train"}], "dev": [{**source, "split": "validation"}], "batch_seconds": None}
    corpus = load_corpus(data)
    assert not corpus.problems and len(corpus.train) == 4 and len(corpus.dev) == 4
    halves = [load_cuts([{**source, "split": split}])[0] for split in ("train[:50%]", "train[50%:]")]
    assert [[cut.supervisions[0].text for cut in half] for half in halves] == [["A", "B"], ["C", "D"]]
    both = load_cuts([{**source, "split": "train[:1]+validation[1:2]"}])[0]
    assert [cut.supervisions[0].text for cut in both] == ["A", "B"]


def test_files_of_its_own_are_read_where_they_are(saved, tmp_path):
    """A parquet file whose audio is paths, loaded by the folder's name."""
    datasets = pytest.importorskip("datasets")
    _, paths = saved
    columns = {"audio": [{"bytes": None, "path": str(path)} for path in paths], "text": ["A", "B", "C"]}
    (tmp_path / "parquet").mkdir()
    data = _data_set(columns, text=datasets.Value("string"))
    data.to_parquet(tmp_path / "parquet" / "train.parquet")
    cuts, _ = load_cuts([{"kind": "huggingface", "name": str(tmp_path / "parquet"), "split": "train"}])
    assert [cut.recording.sources[0].source for cut in cuts] == [str(path) for path in paths]


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeechFTError, match=r"cannot be loaded .*; check its name"):
        load_cuts([{"kind": "huggingface", "name": str(tmp_path / "empty"), "split": "train"}])
