"""Merging against independent arithmetic, and what it refuses."""

import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from small import save_upstream

from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import SafetensorsWriter, TensorInfo
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.merge.methods.linear import linear
from speechft.upstreams.load import load_upstream


def _arrays(folder):
    return load_file(folder / "model.safetensors")


def test_weights_equal_the_formula_in_numpy(parents, tmp_path):
    base, (tuned, _) = parents
    origin, other = _arrays(base), _arrays(tuned)
    for model in merge(base, [tuned], [0.25, 0.6], out=tmp_path):
        merged = _arrays(model.folder)
        assert merged.keys() == origin.keys()
        for name in merged:
            expected = (1 - model.alpha) * origin[name].astype(np.float64) + model.alpha * other[name].astype(
                np.float64
            )
            assert merged[name].dtype == np.float32
            np.testing.assert_allclose(merged[name], expected, atol=1e-6)


def test_zero_and_one_are_the_parents_bit_for_bit(parents, tmp_path):
    base, (tuned, _) = parents
    zero, one = merge(base, [tuned], [0.0, 1.0], out=tmp_path)
    for model, parent in ((zero, base), (one, tuned)):
        merged, expected = _arrays(model.folder), _arrays(parent)
        assert all(np.array_equal(merged[name], expected[name]) for name in expected)


def test_several_models_are_averaged_as_task_vectors(parents, tmp_path):
    base, tuned = parents
    (model,) = merge(base, tuned, [0.5], out=tmp_path)
    origin, (a, b) = _arrays(base), map(_arrays, tuned)
    for name, value in _arrays(model.folder).items():
        np.testing.assert_allclose(
            value, origin[name] + 0.5 * ((a[name] - origin[name]) + (b[name] - origin[name])) / 2, atol=1e-6
        )


def test_a_merged_folder_is_complete_and_loads_everywhere(parents, tmp_path):
    base, (tuned, _) = parents
    (model,) = merge(base, [tuned], out=tmp_path)
    assert model.alpha == 0.25 and model.folder.name == "alpha-0.25"
    names = {path.name for path in model.folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "merge.json"}
    record = json.loads((model.folder / "merge.json").read_text())
    assert record["alpha"] == 0.25 and record["method"] == "linear" and "fine-tuned side" in record["alpha_means"]
    assert [parent["sha256"] for parent in record["parents"]] == [
        load_upstream(f).identity.sha256 for f in (base, tuned)
    ]
    ours = load_upstream(model.folder)
    assert record["sha256"] == ours.identity.sha256
    theirs = transformers.AutoModel.from_pretrained(model.folder).eval()
    wave = torch.randn(6000)
    with torch.inference_mode():
        assert torch.allclose(ours([wave]).last, theirs(wave[None]).last_hidden_state, atol=1e-5)


def test_from_python_more_than_once(parents, tmp_path):
    """The package that the first call imports takes the function's name."""
    import speechft

    base, tuned = parents
    for name in ("first", "second"):
        made = speechft.merge(base, tuned, [0.5], out=tmp_path / name)
        assert [one.folder for one in made] == [tmp_path / name / "alpha-0.5"]
    (one,) = speechft.merge(base, tuned, 0.5, out=tmp_path / "third")
    assert one.folder == tmp_path / "third" / "alpha-0.5"


def test_update_sizes_are_norms(parents, tmp_path):
    base, (tuned, _) = parents
    (model,) = merge(base, [tuned], out=tmp_path)
    record = json.loads((model.folder / "merge.json").read_text())["update"]
    origin, other = _arrays(base), _arrays(tuned)
    flat0, flat1 = (np.concatenate([a[name].ravel().astype(np.float64) for name in sorted(a)]) for a in (origin, other))
    assert record["norm"] == pytest.approx(np.linalg.norm(flat1 - flat0), rel=1e-6)
    assert record["relative"] == pytest.approx(np.linalg.norm(flat1 - flat0) / np.linalg.norm(flat0), rel=1e-6)
    assert {"cnn", "layers.0", "position"} <= record["parts"].keys()


def test_half_precision_parents_are_merged_in_float32(parents, tmp_path):
    base, (tuned, _) = parents
    half = tmp_path / "half"
    shutil.copytree(base, half)
    transformers.AutoModel.from_pretrained(base).half().save_pretrained(half)
    (zero, mid) = merge(half, [tuned], [0.0, 0.25], out=tmp_path / "out")
    stored = _arrays(half)
    assert all(np.array_equal(value, stored[name].astype(np.float32)) for name, value in _arrays(zero.folder).items())
    other = _arrays(tuned)
    for name, value in _arrays(mid.folder).items():
        np.testing.assert_allclose(value, 0.75 * stored[name].astype(np.float64) + 0.25 * other[name], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 3), min_size=1, max_size=8),
    alpha=st.floats(0, 1),
    shape=st.booleans(),
)
def test_properties_of_linear(values, alpha, shape):
    base, one, two = (torch.tensor([row[i] for row in values]) for i in range(3))
    if shape and len(values) == 1:
        base, one, two = base[0], one[0], two[0]  # 0-d tensors
    assert torch.equal(linear(base, [one], 0.0), base)
    assert torch.equal(linear(base, [one], 1.0), one)
    assert torch.equal(linear(base, [base], alpha), base)  # no update, no change
    assert torch.equal(linear(base, [one, two], alpha), linear(base, [two, one], alpha))
    low, high = torch.minimum(base, one), torch.maximum(base, one)
    mid = linear(base, [one], alpha)
    assert ((mid >= low - 1e-3) & (mid <= high + 1e-3)).all()


@pytest.mark.parametrize("alpha", [1.5, -0.1, float("nan")])
def test_alpha_outside_the_segment_needs_permission(parents, tmp_path, alpha):
    base, (tuned, _) = parents
    with pytest.raises(UsageError, match="alpha"):
        merge(base, [tuned], [alpha], out=tmp_path)
    assert not list(tmp_path.iterdir())
    if alpha == 1.5:
        (model,) = merge(base, [tuned], [alpha], out=tmp_path, extrapolate=True)
        name = "feature_projection.projection.bias"
        expected = _arrays(base)[name] + 1.5 * (_arrays(tuned)[name] - _arrays(base)[name])
        np.testing.assert_allclose(_arrays(model.folder)[name], expected, atol=1e-6)


def test_no_update_is_an_error(parents, tmp_path):
    base, (tuned, _) = parents
    with pytest.raises(SpeechFTError, match="no update to merge"):
        merge(base, [base], out=tmp_path)
    with pytest.raises(SpeechFTError, match="equals the pre-trained model: it would only weaken the others"):
        merge(base, [tuned, base], out=tmp_path)
    with pytest.raises(SpeechFTError, match="nothing of the update is left"):
        merge(base, [tuned], out=tmp_path, keep=["*"])
    assert not list(tmp_path.iterdir())


def test_foreign_parents_are_refused_with_what_differs(parents, tmp_path, capsys):
    base, _ = parents
    larger = save_upstream(tmp_path / "larger", hidden_size=64)
    with pytest.raises(SpeechFTError, match=r"of another shape \(encoder\.layer_norm\.bias"):
        merge(base, [larger], out=tmp_path / "out")
    listed = capsys.readouterr().err
    assert "  encoder.layer_norm.bias: [32] in θ0, [64] in" in listed and listed.count("\n") > 20  # every tensor
    deeper = save_upstream(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(SpeechFTError, match=r"that θ0 lacks \(encoder\.layers\.2"):
        merge(base, [deeper], out=tmp_path / "out")
    other = save_upstream(tmp_path / "wavlm", "wavlm")
    with pytest.raises(SpeechFTError, match=r"is a wavlm, .* a hubert"):
        merge(base, [other], out=tmp_path / "out")
    with pytest.raises(UsageError, match="unknown merge method 'sclerp'; known: linear"):
        merge(base, [larger], method="sclerp", out=tmp_path / "out")


def test_the_merged_model_hears_what_the_fine_tuned_one_heard(parents, tmp_path):
    """The hub's files of base models say normalise; a model that was fine-tuned without must be merged without."""
    base, (tuned, other) = parents
    hub = tmp_path / "hub"
    shutil.copytree(base, hub)
    (hub / "preprocessor_config.json").write_text('{"do_normalize": true}')
    (model,) = merge(hub, [tuned], out=tmp_path / "out")
    assert load_upstream(tuned).identity.normalize is load_upstream(model.folder).identity.normalize is False
    differs = tmp_path / "differs"
    shutil.copytree(other, differs)
    (differs / "preprocessor_config.json").write_text('{"do_normalize": true, "written_by": "speechft"}')
    with pytest.raises(SpeechFTError, match="disagree about input normalisation"):
        merge(hub, [tuned, differs], out=tmp_path / "out")


def test_leftovers_of_a_killed_merge_are_no_models(parents, tmp_path):
    from speechft.runs import Run
    from speechft.superb.sources import expand

    base, (tuned, _) = parents
    (model,) = merge(base, [tuned], out=tmp_path / "merged")
    shutil.copytree(model.folder, tmp_path / "merged" / ".partial-alpha-0.5-aaaa")
    assert Run(tmp_path).merged_models() == [model.folder] and expand(tmp_path) == [str(model.folder)]
    merge(base, [tuned], [0.5], out=tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"alpha-0.25", "alpha-0.5"}


def test_another_parent_than_the_runs_is_refused(parents, tmp_path):
    base, (tuned, _) = parents
    with pytest.raises(SpeechFTError, match="not the upstream that the run started from"):
        merge(base, [tuned], out=tmp_path, pretrained_sha256="0" * 64)


def test_an_interrupted_merge_leaves_the_old_result(parents, tmp_path, monkeypatch):
    base, (tuned, other) = parents
    (model,) = merge(base, [tuned], out=tmp_path)
    before = _arrays(model.folder)

    def fails(folder, sha256):
        raise KeyboardInterrupt

    monkeypatch.setattr("speechft.merge.finishing.run_once", fails)
    with pytest.raises(KeyboardInterrupt):
        merge(base, [other], out=tmp_path)
    after = _arrays(model.folder)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [path.name for path in tmp_path.iterdir()] == ["alpha-0.25"]


def test_streamed_files_are_what_safetensors_reads(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.zeros(0, 2), "d": torch.randn(5).bfloat16()}
    infos = {name: TensorInfo(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with SafetensorsWriter(tmp_path / "model.safetensors", infos) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    (tmp_path / "config.json").write_text("{}")
    reader = FolderReader(tmp_path)
    assert reader.names() == list("abcd")
    for name, tensor in tensors.items():
        assert reader.info(name) == infos[name] and torch.equal(reader.read(name), tensor)
    with pytest.raises(ValueError, match="expected a"), SafetensorsWriter(tmp_path / "x", infos) as writer:
        writer.write("b", tensors["b"])
    with pytest.raises(ValueError, match="3 tensors"), SafetensorsWriter(tmp_path / "x", infos) as writer:
        writer.write("a", tensors["a"])


def test_models_that_compute_otherwise_are_refused(parents, tmp_path):
    """The same shapes, other heads: a merge would run under θ0's configuration and be neither."""
    base, (tuned, _) = parents
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4, "hidden_dropout": 0.3}))
    with pytest.raises(SpeechFTError, match=r"num_attention_heads differ in config.json"):
        merge(base, [other], [0.5], out=tmp_path / "out")
    (other / "config.json").write_text(json.dumps({**config, "hidden_dropout": 0.3}))
    assert merge(base, [other], [0.5], out=tmp_path / "out")


def test_alphas_that_would_share_a_folder(parents, tmp_path):
    base, (tuned, _) = parents
    with pytest.raises(UsageError, match="six digits"):
        merge(base, [tuned], [0.12345671, 0.12345672], out=tmp_path)


def test_the_card_says_what_was_applied_and_with_what(parents, tmp_path):
    base, tuned = parents
    (plain,) = merge(base, tuned[:1], [0.25], out=tmp_path)
    (kept,) = merge(base, tuned[:1], [0.25], out=tmp_path, keep=["cnn"])
    origin, other = _arrays(base), _arrays(tuned[0])
    flat0, flat1 = (np.concatenate([a[name].ravel().astype(np.float64) for name in sorted(a)]) for a in (origin, other))
    share = 100 * np.linalg.norm(flat1 - flat0) / np.linalg.norm(flat0)
    said = " ".join((plain.folder / "README.md").read_text().split())
    assert (
        f"The update is {share:.2f} % of the pre-trained weights' norm; α times it, {share / 4:.2f} % of that" in said
    )
    assert f"Made with speechft {version('speechft')}, torch {torch.__version__.partition('+')[0]}" in said
    assert "α times it" not in (kept.folder / "README.md").read_text()
