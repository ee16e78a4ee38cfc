"""α per layer, part and tensor; tensors that stay; weight norm; names of folders; types that are stored."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file

from speechft.checkpoints.stream import FolderReader
from speechft.errors import UsageError
from speechft.merge import streaming
from speechft.merge.alphas import Choice, matching
from speechft.merge.merge import merge
from speechft.merge.registry import METHODS
from speechft.merge.weight_norm import effective, pairs, stored

G, V = (f"encoder.pos_conv_embed.conv.parametrizations.weight.original{number}" for number in (0, 1))


def _arrays(folder):
    return load_file(folder / "model.safetensors")


def shares(merged, base, tuned):
    """The α that each tensor shows."""
    a, b, c = map(_arrays, (merged, base, tuned))
    return {
        name: float(((a[name] - b[name]) * (c[name] - b[name])).sum() / ((c[name] - b[name]) ** 2).sum()) for name in a
    }


def test_patterns_and_kept_tensors(parents, tmp_path):
    base, (tuned, _) = parents
    one, two = merge(
        base, [tuned], [0.25, 0.5], out=tmp_path,
        alpha_at={"layers.1": 0.75, "cnn": 0.0, "*.attention.k_proj.weight": 1.0}, keep=["masked_spec_embed", "*.bias"],
    )  # fmt: skip
    assert [model.folder.name for model in (one, two)] == ["alpha-0.25-varied", "alpha-0.5-varied"]
    for model, alpha in ((one, 0.25), (two, 0.5)):
        for name, share in shares(model.folder, base, tuned).items():
            expected = alpha
            if name.startswith("encoder.layers.1."):
                expected = 0.75
            if name.startswith("feature_extractor") or name.endswith(".bias") or name == "masked_spec_embed":
                expected = 0.0
                if name.endswith(".bias") or name == "masked_spec_embed":
                    assert np.array_equal(_arrays(model.folder)[name], _arrays(base)[name])
            elif name.endswith("k_proj.weight"):
                expected = 1.0
            assert share == pytest.approx(expected, abs=1e-4), name
    choices = json.loads((one.folder / "merge.json").read_text())["choices"]
    assert choices["keep"] == ["masked_spec_embed", "*.bias"] and choices["alpha_at"]["layers.1"] == 0.75
    assert "`keep` masked_spec_embed *.bias" in (one.folder / "README.md").read_text()


def test_a_list_over_depth(parents, tmp_path):
    base, (tuned, _) = parents
    (model,) = merge(base, [tuned], out=tmp_path, alpha_by_depth=[0.0, 0.5, 0.8])
    assert model.folder.name == "alpha-by-depth"
    found = shares(model.folder, base, tuned)
    assert found["feature_extractor.conv_layers.0.conv.weight"] == pytest.approx(0.0, abs=1e-6)
    assert found["encoder.layers.0.attention.q_proj.weight"] == pytest.approx(0.0, abs=1e-6)
    assert found["encoder.layers.1.attention.q_proj.weight"] == pytest.approx(0.8, abs=1e-4)
    names = [f"encoder.layers.{index}.x" for index in range(9)]
    choice = Choice({}, [0.0, 0.5, 0.8], [])
    assert list(choice.per_tensor(names, 0.1).values()) == pytest.approx(
        np.interp(np.linspace(0, 1, 9), [0, 0.5, 1], [0.0, 0.5, 0.8])
    )
    assert set(Choice({}, [0.3], []).per_tensor(names, 0.1).values()) == {0.3}
    with pytest.raises(UsageError, match="alpha is given twice"):
        merge(base, [tuned], [0.25], out=tmp_path, alpha_by_depth=[0, 1])


def test_what_patterns_mean():
    parts = {f"encoder.layers.{index}.fc.weight": f"layers.{index}" for index in range(12)}
    parts["feature_extractor.x.weight"] = "cnn"
    assert matching("layers.1", parts) == ["encoder.layers.1.fc.weight"]
    assert len(matching("layers.1*", parts)) == 3 and len(matching("encoder", parts)) == 12
    assert matching("cnn", parts) == matching("feature_extractor", parts) == ["feature_extractor.x.weight"]
    with pytest.raises(UsageError, match=r"no tensor matches 'layer.1'; parts: layers.0, .*cnn; or names such as enc"):
        matching("layer.1", parts)


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if not one.statistics])
def test_every_method_takes_them_and_names_its_parameters(method, parents, tmp_path):
    base, tuned = parents
    chosen = METHODS[method]
    tuned = tuned[: chosen.most]
    (model,) = merge(base, tuned, [0.5], method, tmp_path, alpha_at={"layers.0": 0.0}, keep=["cnn"], check=False)
    expected = "alpha-0.5-varied" if method == "linear" else f"{method}-alpha-0.5-varied"
    assert model.folder.name == expected
    record = json.loads((model.folder / "merge.json").read_text())
    assert record["method"] == method and record["parameters"] == chosen.read({}, len(tuned))
    assert record["checked"] is False and record["paper"] == chosen.paper
    before, after = _arrays(base), _arrays(model.folder)
    fixed = {name for name in before if name.startswith(("encoder.layers.0.", "feature_extractor."))}
    assert {name for name in before if np.array_equal(before[name], after[name])} >= fixed
    moved = np.concatenate([(after[name] - before[name]).ravel() for name in before.keys() - fixed])
    assert record["applied"]["norm"] == pytest.approx(np.linalg.norm(moved.astype(np.float64)), rel=1e-5)
    for name in before.keys() - fixed:  # tensor by tensor, the function and nothing else
        values = chosen.read({}, len(tuned))
        if chosen.draws:
            values["seed"] = streaming.tensor_seed(0, name)
        others = [torch.from_numpy(_arrays(folder)[name]) for folder in tuned]
        alone = chosen.function(torch.from_numpy(before[name]), others, 0.5, **values)
        np.testing.assert_allclose(after[name], alone.numpy(), rtol=1e-6, atol=1e-7)


def test_pieces_of_a_tensor_are_the_tensor(parents, tmp_path, monkeypatch):
    base, tuned = parents
    (whole,) = merge(base, tuned, [0.3], out=tmp_path / "whole", check=False)
    monkeypatch.setattr(streaming, "PIECE", 37)
    (pieces,) = merge(base, tuned, [0.3], out=tmp_path / "pieces", check=False)
    one, other = (model.folder / "model.safetensors" for model in (whole, pieces))
    assert one.read_bytes() == other.read_bytes()
    records = [json.loads((model.folder / "merge.json").read_text()) for model in (whole, pieces)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert records[0]["parents"][0] == records[1]["parents"][0]
    assert records[0]["update"]["norm"] == pytest.approx(records[1]["update"]["norm"])


def test_effective_weight_norm(parents, tmp_path):
    base, (tuned, _) = parents
    zero, half, one = merge(base, [tuned], [0.0, 0.5, 1.0], out=tmp_path, weight_norm="effective")
    assert half.folder.name == "alpha-0.5-effective"

    def weight(folder):
        arrays = _arrays(folder)
        return arrays[G] * arrays[V] / np.sqrt((arrays[V].astype(np.float64) ** 2).sum((0, 1), keepdims=True))

    expected = 0.5 * weight(base) + 0.5 * weight(tuned)
    np.testing.assert_allclose(weight(half.folder), expected, atol=1e-6)
    told, whole = (json.loads((one.folder / "merge.json").read_text())["applied"]["norm"] for one in (half, one))
    assert 0.45 < told / whole < 0.55  # half of the update, whatever length v has
    (plain,) = merge(base, [tuned], [0.5], out=tmp_path)
    assert np.abs(weight(plain.folder) - expected).max() > 1e-3  # g and v by themselves are another model
    for end, parent in ((zero, base), (one, tuned)):  # the ends are the parents', g and v too
        merged, original = _arrays(end.folder), _arrays(parent)
        assert all(np.array_equal(merged[name], original[name]) for name in original)
    others = {name for name in _arrays(base) if name not in (G, V)}
    assert all(np.array_equal(_arrays(half.folder)[name], _arrays(plain.folder)[name]) for name in others)


@pytest.mark.parametrize("spelling", ["today's", "older"])
def test_weight_norm_is_torchs_in_both_spellings(spelling):
    convolution = torch.nn.Conv1d(6, 6, 4, groups=2)
    if spelling == "older":
        with pytest.warns(FutureWarning):
            torch.nn.utils.weight_norm(convolution, name="weight", dim=2)
    else:
        torch.nn.utils.parametrizations.weight_norm(convolution, name="weight", dim=2)
    state = {f"x.{name}": tensor for name, tensor in convolution.state_dict().items()}
    ((g, v),) = pairs(state).items()
    assert torch.allclose(effective(state[g], state[v]), convolution.weight, atol=1e-6)
    again = stored(convolution.weight.detach() * 3, state[g], state[v])
    over = [index for index, size in enumerate(state[g].shape) if size == 1]
    assert torch.allclose(again[1].norm(dim=over), state[v].norm(dim=over), rtol=1e-5)  # v's length is not w's
    nothing = stored(torch.zeros_like(state[v]), state[g], state[v])
    assert torch.equal(effective(*nothing), torch.zeros_like(state[v]))
    assert again[0].shape == state[g].shape and torch.allclose(effective(*again), convolution.weight * 3, atol=1e-5)


def test_older_spelling_in_a_folder(parents, tmp_path):
    base, (tuned, _) = parents
    older = tmp_path / "older"
    shutil.copytree(tuned, older)
    state = load_torch(older / "model.safetensors")
    state[G.replace("parametrizations.weight.original0", "weight_g")] = state.pop(G)
    state[V.replace("parametrizations.weight.original1", "weight_v")] = state.pop(V)
    save_file(state, older / "model.safetensors", {"format": "pt"})
    out = tmp_path / "merged"
    results = [
        merge(base, [folder], [0.4], out=out / folder.name, weight_norm="effective", check=False)[0].folder
        for folder in (tuned, older)
    ]
    one, other = map(_arrays, results)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "kinds",
    [("float16", "float16"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16"),
     ("float8_e4m3fn", "float8_e4m3fn"), ("float8_e5m2", "float16"), ("float64", "float32")],
)  # fmt: skip
def test_any_stored_type_with_integers_and_scalars(kinds, tmp_path):
    """A folder of tensors alone: nothing of it is run."""
    generator = torch.Generator().manual_seed(0)
    folders = []
    for number, kind in enumerate(kinds):
        dtype = getattr(torch, kind)
        state = {
            "a.weight": torch.randn(5, 7, generator=generator).to(dtype),
            "b.scalar": torch.tensor(0.5 + number).to(dtype),
            "c.steps": torch.tensor(12 + number), "d.flags": torch.tensor([True, False]), "e.empty": torch.zeros(0, 3),
            "f.bytes": torch.arange(4, dtype=torch.uint8),
        }  # fmt: skip
        folder = tmp_path / f"{number}"
        folder.mkdir()
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
        folders.append(folder)
    (model,) = merge(folders[0], [folders[1]], [0.25], out=tmp_path / "out", to="hf", check=False)
    base, tuned, merged = (load_torch(f / "model.safetensors") for f in (*folders, model.folder))
    kind = merged["a.weight"].dtype
    for name in ("a.weight", "b.scalar"):
        exact = 0.75 * base[name].double() + 0.25 * tuned[name].double()
        assert merged[name].shape == base[name].shape and merged[name].dtype == kind
        step = torch.finfo(kind).eps if kind.is_floating_point else 0
        assert ((merged[name].double() - exact).abs() <= step * exact.abs() + 1e-3 * (kind.itemsize == 1)).all()
    assert kind.itemsize >= max(getattr(torch, one).itemsize for one in kinds)
    if kinds == ("float16", "bfloat16"):
        assert kind == torch.float32  # neither holds the other's values
    for name in ("c.steps", "d.flags", "e.empty", "f.bytes"):
        assert torch.equal(merged[name], base[name]) and merged[name].dtype == base[name].dtype
    assert FolderReader(model.folder).names() == sorted(base)


def test_a_whole_whisper_and_its_fine_tuned_encoder(whisper_folder, tmp_path):
    """The hub's checkpoint has encoder and decoder; stage 1 writes the encoder alone."""
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    for folder in (base, tuned):
        shutil.copytree(whisper_folder, folder)
    state = load_torch(whisper_folder / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in state.items()}, tuned / "model.safetensors", {"format": "pt"})
    whole = {f"model.encoder.{name}": tensor for name, tensor in state.items()}
    whole["model.decoder.embed_tokens.weight"] = torch.zeros(3, 3)
    save_file(whole, base / "model.safetensors", {"format": "pt"})
    (model,) = merge(base, [tuned], [0.5], out=tmp_path / "out")
    merged = load_torch(model.folder / "model.safetensors")
    assert merged.keys() == state.keys()
    assert all(torch.allclose(merged[name], state[name] + 0.005, atol=1e-6) for name in state)
