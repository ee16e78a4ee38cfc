"""Norms of updates against numpy, and the place of every tensor of every family."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small import save_upstream

from speechft.analysis.updates import module_of, update_norms
from speechft.checkpoints.stream import FolderReader
from speechft.errors import SpeechFTError


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    first, second = (save_upstream(folder / str(seed), seed=seed) for seed in (0, 1))
    return first, second


def _sizes(first, second, keep):
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    squares = [
        (((b[name].astype(np.float64) - a[name]) ** 2).sum(), (a[name].astype(np.float64) ** 2).sum())
        for name in a if keep(name)
    ]  # fmt: skip
    update, origin = (np.sqrt(sum(values)) for values in zip(*squares, strict=True))
    return update, origin, update / origin


def test_norms_against_numpy(pair):
    norms = update_norms(*map(FolderReader, pair))
    whole = _sizes(*pair, lambda name: True)
    assert (norms["norm"], norms["base_norm"], norms["relative"]) == pytest.approx(whole, rel=1e-10)
    layer = norms["parts"]["layers.1"]
    assert layer["relative"] == pytest.approx(_sizes(*pair, lambda name: "encoder.layers.1." in name)[2], rel=1e-10)
    query = _sizes(*pair, lambda name: "encoder.layers.1.attention.q_proj." in name)
    assert tuple(layer["modules"]["q"].values()) == pytest.approx(query, rel=1e-10)
    assert list(norms["parts"]) == [
        "cnn", "projection", "mask_embedding", "position", "layers.0", "layers.1",
    ]  # fmt: skip
    assert sum(part["norm"] ** 2 for part in norms["parts"].values()) == pytest.approx(whole[0] ** 2)
    for part in norms["parts"].values():
        assert sum(one["norm"] ** 2 for one in part["modules"].values()) == pytest.approx(part["norm"] ** 2)
    norm = layer["modules"]["norm"]  # both start from the same ones and zeros
    assert norm["norm"] == 0 and norm["relative"] == 0


def test_half_precision_integers_and_what_is_zero(pair, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, source in ((first, pair[0]), (second, pair[1])):
        folder.mkdir()
        (folder / "config.json").write_text((source / "config.json").read_text())
        state = {name: value.astype(np.float16) for name, value in load_file(source / "model.safetensors").items()}
        state["steps"] = np.array(len(folder.name) + (folder is second))
        state["layers.0.fc1.bias"] = np.full(3, float(folder is second), dtype=np.float32)
        save_file(state, folder / "model.safetensors")
    norms = update_norms(FolderReader(first), FolderReader(second))
    assert norms["norm"] == pytest.approx(_sizes(first, second, lambda name: name != "steps")[0], rel=1e-10)
    ffn = norms["parts"]["layers.0"]["modules"]["ffn in"]
    assert ffn["relative"] > 0
    assert "steps" not in {name for part in norms["parts"].values() for name in part["modules"]}


def test_models_that_do_not_fit(pair, tmp_path):
    wider = save_upstream(tmp_path / "wider", hidden_size=48)
    with pytest.raises(SpeechFTError, match=r"does not fit .*of another shape .*; compare models of one architecture"):
        update_norms(FolderReader(pair[0]), FolderReader(wider))


def test_weights_that_are_not_finite(pair, tmp_path):
    state = load_file(pair[1] / "model.safetensors")
    name = next(name for name in state if name.endswith("layers.1.attention.q_proj.weight"))
    for value in (np.nan, np.inf):
        state[name][0, 0] = value
        (tmp_path / "config.json").write_text((pair[1] / "config.json").read_text())
        save_file(state, tmp_path / "model.safetensors")
        for models in ((pair[0], tmp_path), (tmp_path, pair[0])):
            with pytest.raises(SpeechFTError, match=rf"{name} of {tmp_path} is not finite; its weights are broken"):
                update_norms(*map(FolderReader, models))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("encoder.layers.11.attention.q_proj.weight", "q"),
        ("encoder.layers.0.attention.gru_rel_pos_const", "gate"),
        ("encoder.layers.0.attention.rel_attn_embed.weight", "bias"),
        ("encoder.layers.0.feed_forward.intermediate_dense.bias", "ffn in"),
        ("encoder.layers.0.final_layer_norm.weight", "final norm"),
        ("layers.3.self_attn.out_proj.weight", "out"),
        ("layers.3.fc2.bias", "ffn out"),
        ("conv1.weight", "conv1"),
        ("embed_positions.weight", "embed_positions"),
        ("feature_extractor.conv_layers.4.conv.weight", "conv_layers.4.conv"),
        ("feature_projection.projection.bias", "projection"),
        ("projection.weight", "projection"),
        ("encoder.pos_conv_embed.conv.parametrizations.weight.original0", "conv"),
        ("encoder.layer_norm.bias", "layer_norm"),
        ("masked_spec_embed", "masked_spec_embed"),
    ],
)
def test_modules(name, module):
    assert module_of(name) == module
