"""Weights in several files with an index, as transformers writes large models."""

import fnmatch
import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small import save_upstream

from speechft.checkpoints.convert import convert
from speechft.checkpoints.folder import read_folder
from speechft.checkpoints.stream import FolderReader
from speechft.errors import SpeechFTError
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream, locate

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return save_upstream(tmp_path_factory.mktemp("single") / "model")


@pytest.fixture
def sharded(single, tmp_path):
    """The same model, saved by transformers in files of at most 20 kB."""
    folder = tmp_path / "sharded"
    transformers.AutoModel.from_pretrained(single).save_pretrained(folder, max_shard_size="20KB")
    shutil.copy(single / "preprocessor_config.json", folder)
    assert (folder / INDEX).is_file() and not (folder / "model.safetensors").exists()
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 3
    return folder


def in_bin_files(folder):
    """The same shards as torch saves them."""
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    renamed = {file: f"pytorch_{file.removesuffix('safetensors')}bin" for file in places.values()}
    for file, new in renamed.items():
        torch.save(load_file(folder / file), folder / new)
        (folder / file).unlink()
    moved = {name: renamed[file] for name, file in places.items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    (folder / INDEX).unlink()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_several_files_are_the_model_in_one(kind, single, sharded, tmp_path, monkeypatch):
    if kind == "bin":
        in_bin_files(sharded)
    one, several = FolderReader(single), FolderReader(sharded)
    assert several.names() == one.names() and several.shapes() == one.shapes()
    for name in one.names():
        assert torch.equal(several.read(name), one.read(name)) and several.info(name) == one.info(name)
        assert torch.equal(several.read(name, 1, 5), one.read(name, 1, 5))
    upstream = load_upstream(sharded)
    monkeypatch.setattr("speechft.checkpoints.stream._PIECE", 37)
    assert several.sha256() == upstream.identity.sha256 == load_upstream(single).identity.sha256
    several.close()
    wave = torch.randn(4000)
    with torch.inference_mode():
        theirs = transformers.AutoModel.from_pretrained(single).eval()(wave[None]).last_hidden_state
        assert torch.allclose(upstream([wave]).last, theirs, atol=1e-5)
    joined = convert(sharded, tmp_path / "joined", "hf")
    assert {path.name for path in joined.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    a, b = (load_file(folder / "model.safetensors") for folder in (single, joined))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_they_are_merged_as_parents(single, sharded, tmp_path):
    tuned = tmp_path / "tuned"
    shutil.copytree(single, tuned)
    state = {name: tensor + 0.1 for name, tensor in load_file(tuned / "model.safetensors").items()}
    save_file(state, tuned / "model.safetensors", {"format": "pt"})
    results = [
        merge(base, [tuned], [0.25], out=tmp_path / f"out{number}")[0].folder / "model.safetensors"
        for number, base in enumerate((single, sharded))
    ]
    assert results[0].read_bytes() == results[1].read_bytes()


def test_one_file_is_taken_first(single, sharded):
    shutil.copy(single / "model.safetensors", sharded)
    for file in sharded.glob("model-*"):
        file.unlink()
    assert FolderReader(sharded).names() == FolderReader(single).names()


def test_what_is_missing_or_wrong_is_one_line(sharded):
    index = json.loads((sharded / INDEX).read_text())
    name, file = next(iter(index["weight_map"].items()))
    kept = (sharded / file).read_bytes()

    def refused(match):
        for read in (FolderReader, read_folder, load_upstream):
            with pytest.raises(SpeechFTError, match=match):
                read(sharded)

    (sharded / file).unlink()
    refused(rf"{file} is missing; .*index.json names it")
    save_file({"other": torch.zeros(1)}, sharded / file)
    refused(r"lacks .*, which the index says is in it")
    (sharded / file).write_bytes(kept[: len(kept) // 2])
    refused("no readable checkpoint")
    (sharded / file).write_bytes(kept)
    for places in ({**index["weight_map"], name: f"../sharded/{file}"}, {}, None, [1]):
        (sharded / INDEX).write_text(json.dumps({"weight_map": places}))
        refused("names no files of weights")
    (sharded / INDEX).unlink()
    refused(r"model.safetensors is missing")


@pytest.mark.parametrize("stored", [
    ["model.safetensors", "pytorch_model.bin"],
    [INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model-00001-of-00002.bin"],
    ["pytorch_model.bin"],
    ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
], ids=str)  # fmt: skip
def test_what_is_fetched_from_the_hub(stored, tmp_path, monkeypatch):
    fetched = []

    def snapshot_download(source, allow_patterns):
        for name in ["config.json", "tf_model.h5", *stored]:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                fetched.append(name)
                (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert locate("someone/model") == tmp_path
    safe = [name for name in stored if "safetensors" in name]
    assert set(fetched) == {"config.json", *(safe or stored)}
