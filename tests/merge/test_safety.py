"""Whatever stops a merge, there is the old result or the new one, never a part of one."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from speechft.checkpoints.hashing import streamed_sha256
from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import SafetensorsWriter
from speechft.cli.main import main
from speechft.errors import SpeechFTError
from speechft.merge.merge import merge


def complete(folder):
    """A merged folder is whole: its record's hash is that of its weights."""
    record = json.loads((folder / "merge.json").read_text())
    reader = FolderReader(folder)
    assert streamed_sha256(reader.names(), reader.read) == record["sha256"]
    assert {"config.json", "preprocessor_config.json", "README.md"} <= {path.name for path in folder.iterdir()}
    return record["sha256"]


def test_kill_9_at_any_moment(parents, tmp_path):
    """A child merges one fine-tuned model, then the other, again and again over the same folder, and is killed."""
    base, tuned = parents
    known = set()
    for one in tuned:
        (model,) = merge(base, [one], out=tmp_path, check=False)
        known.add(complete(model.folder))
    assert len(known) == 2
    chance = random.Random(0)
    seen = []
    for _ in range(12):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            while True:
                for one in tuned:
                    merge(base, [one], out=tmp_path, check=False)
        time.sleep(chance.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(complete(tmp_path / "alpha-0.25"))
        assert seen[-1] in known
    merge(base, [tuned[0]], out=tmp_path, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["alpha-0.25"]  # leftovers are cleared


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_full_disk_leaves_the_old_result(parents, tmp_path, monkeypatch, share):
    base, tuned = parents
    (model,) = merge(base, [tuned[0]], out=tmp_path, check=False)
    before = complete(model.folder)
    size = (model.folder / "model.safetensors").stat().st_size
    put, written = SafetensorsWriter._put, [0]

    def full(self, data):
        written[0] += len(data)
        if written[0] > share * 2 * size:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, data)

    monkeypatch.setattr(SafetensorsWriter, "_put", full)
    with pytest.raises(SpeechFTError, match=r"^the disk is full while writing \S+; free some space and run the same"):
        merge(base, [tuned[1]], [0.25, 0.5], out=tmp_path, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["alpha-0.25"] and complete(model.folder) == before


def test_a_full_disk_while_s3prls_file_is_written(parents, tmp_path, monkeypatch):
    base, tuned = parents
    (model,) = merge(base, [tuned[0]], out=tmp_path, check=False)
    before = complete(model.folder)
    opened = Path.open

    def to_a_full_disk(path, *words, **more):
        return opened(Path("/dev/full") if ".pt-" in path.name else path, *words, **more)

    monkeypatch.setattr(Path, "open", to_a_full_disk)
    with pytest.raises(SpeechFTError, match="the disk is full while writing"):
        merge(base, [tuned[1]], out=tmp_path, check=False, to="s3prl")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["alpha-0.25"] and complete(model.folder) == before


def test_a_file_that_shrinks_meanwhile_is_no_traceback(parents, tmp_path):
    _, (tuned, _) = parents
    copy = tmp_path / "copy"
    shutil.copytree(tuned, copy)
    reader = FolderReader(copy)
    os.truncate(copy / "model.safetensors", (copy / "model.safetensors").stat().st_size // 2)
    with pytest.raises(SpeechFTError, match="ends in the middle of"):
        for name in reader.names():
            reader.read(name)


def test_parents_are_only_read(parents, tmp_path):
    base, tuned = parents
    files = [path for folder in (base, *tuned) for path in folder.iterdir()]
    before = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    for method in ("linear", "ties", "dare_ties"):
        merge(base, tuned, [0.5], method, tmp_path, check=False)
    assert before == [hashlib.sha256(path.read_bytes()).digest() for path in files]


def test_what_comes_back_must_be_what_was_written(parents, tmp_path, monkeypatch):
    base, (tuned, _) = parents
    put = SafetensorsWriter.write_piece

    def wrong(self, name, piece):
        put(self, name, piece + 1e-3 if name == "encoder.layer_norm.weight" else piece)

    monkeypatch.setattr(SafetensorsWriter, "write_piece", wrong)
    with pytest.raises(SpeechFTError, match="read back differ from those written"):
        merge(base, [tuned], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_merged(parents, tmp_path, capsys):
    base, tuned = parents
    words = ["--method", "ties", "--set", "density=0.3", "weights=1,0.5", "--alpha", "0.5", "--keep", "cnn", "--json"]
    assert (
        main(["merge", "--pretrained", str(base), "--finetuned", *map(str, tuned), "--out", str(tmp_path), *words]) == 0
    )
    out, err = capsys.readouterr()
    (model,) = json.loads(out)
    assert model == {"alpha": 0.5, "folder": str(tmp_path / "ties-alpha-0.5-varied")}
    complete(tmp_path / "ties-alpha-0.5-varied")
    record = json.loads((tmp_path / "ties-alpha-0.5-varied" / "merge.json").read_text())
    assert record["parameters"] == {"density": 0.3, "scope": "tensor", "weights": [1.0, 0.5]}
    assert record["choices"] == {"keep": ["cnn"]}
    assert record["checked"] and "‖τ‖ = " in err and "layers.1 " in err and "cnn " in err


def test_another_merge_of_the_same_name_is_not_replaced_unsaid(parents, tmp_path, capsys):
    base, tuned = parents

    def said(*words, **choices):
        merge(base, *words, out=tmp_path, check=False, **choices)
        return "it is replaced" in capsys.readouterr().err

    assert not said(tuned[:1])
    assert not said(tuned[:1])  # the same again
    assert said(tuned[1:])
    assert not said(tuned, [0.5], "ties") and said(tuned, [0.5], "ties", parameters={"density": 0.5})
    assert not said(tuned[:1], keep=["cnn"]) and said(tuned[:1], keep=["cnn", "*.bias"])
