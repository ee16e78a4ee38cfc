"""Models are built for their weights: nothing is drawn, nothing is shared, and one look can be had in place."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import save_upstream

from speechft.checkpoints.folder import write_folder
from speechft.checkpoints.native import read_native
from speechft.errors import SpeechFTError
from speechft.upstreams.fill import drawn, filled
from speechft.upstreams.load import load_in_place, load_upstream

FAMILIES = ["hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew"]


@pytest.fixture(params=[*FAMILIES, "large", "whisper", "decoar2"])
def folder(request, tmp_path):
    if request.param == "whisper":
        return Path(shutil.copytree(request.getfixturevalue("whisper_folder"), tmp_path / "whisper"))
    if request.param == "decoar2":
        return write_folder(tmp_path / "decoar2", read_native(request.getfixturevalue("decoar2_file")))
    if request.param == "large":
        return save_upstream(tmp_path / "model", "hubert", "layer")
    return save_upstream(tmp_path / "model", request.param)


def test_in_place_it_computes_the_same(folder):
    usual = load_upstream(folder)
    in_place = load_in_place(folder, usual.identity.sha256)
    assert in_place.identity.sha256 == usual.identity.sha256
    waves = [torch.randn(6000), torch.randn(4321)]
    with torch.inference_mode():
        ours, theirs = in_place(waves), usual(waves)
    assert all(torch.equal(a, b) for a, b in zip(ours.states, theirs.states, strict=True))
    if Path("/proc/self/smaps").is_file():
        assert resident(folder / "model.safetensors") == 0  # the last module has forgotten what it used
        weight = next(iter(in_place.parameters()))
        assert float(weight.detach().sum()) == float(next(iter(usual.parameters())).detach().sum())
        assert resident(folder / "model.safetensors") > 0  # what is used again is read again


def resident(path):
    """kB of a file's pages that this process holds, over all its maps of it."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = words[-1] == str(path.resolve())
        elif inside and words[0] == "Rss:":
            total += int(words[1])
    return total


def test_a_loaded_model_does_not_look_at_its_file_again(folder):
    """In place it would: what is written over the file would be its weights."""
    upstream = load_upstream(folder)
    before = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    file = folder / "model.safetensors"
    content = file.read_bytes()
    with file.open("r+b") as stream:
        stream.write(b"\0" * len(content))
    state = upstream.checkpoint().state
    file.write_bytes(content)
    assert any(bool(tensor.any()) for tensor in before.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_nothing_is_drawn(folder):
    state = torch.get_rng_state()
    load_upstream(folder)
    assert torch.equal(state, torch.get_rng_state())


def test_any_type_becomes_float32_and_integers_stay():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.nn.BatchNorm1d(3)
            self.register_buffer("scale", torch.full((2,), 7.0), persistent=False)

    state = {name: tensor.half() if tensor.is_floating_point() else tensor
             for name, tensor in Model().state_dict().items()}  # fmt: skip
    state["inside.num_batches_tracked"] = torch.tensor(5)
    model = filled(Model, state, "x")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32} and model.scale.tolist() == [7.0, 7.0]
    assert int(model.inside.num_batches_tracked) == 5 and model.inside.weight.requires_grad
    with pytest.raises(SpeechFTError, match=r"the weights of x do not fit its config.json: 1 missing \(inside.bias\)"):
        filled(Model, {name: tensor for name, tensor in state.items() if name != "inside.bias"}, "x")
    before = torch.get_rng_state()
    one, other = (drawn(lambda: torch.nn.Linear(3, 3), 5).weight for _ in range(2))
    assert torch.equal(one, other) and torch.equal(before, torch.get_rng_state())


def test_half_precision_in_place_is_converted(tmp_path):
    folder = save_upstream(tmp_path / "model")
    state = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    usual = load_upstream(folder)
    with torch.inference_mode():
        wave = torch.randn(4000)
        assert torch.equal(load_in_place(folder, "x")([wave]).last, usual([wave]).last)
