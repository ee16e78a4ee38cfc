"""TIES over whole models: the exact threshold, and the paper's own way on one long vector."""

import json
import shutil

import numpy as np
import papers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from speechft.cli.main import main
from speechft.errors import UsageError
from speechft.merge import thresholds as module
from speechft.merge.merge import merge
from speechft.merge.methods.ties import ties
from speechft.merge.streaming import infos_of


class Tensors:
    """Arrays that are read as a folder's tensors are."""

    def __init__(self, arrays):
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def read(self, name, start=0, stop=None):
        return self.arrays[name] if stop is None else self.arrays[name].reshape(-1)[start:stop]

    def names(self):
        return sorted(self.arrays)

    def info(self, name):
        from speechft.checkpoints.tensor_file import TensorInfo

        return TensorInfo(self.arrays[name].dtype, tuple(self.arrays[name].shape))


VALUES = st.one_of(
    st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 2.0**-126, 3e38, -3e38]),
    st.floats(-(2.0**-120), 2.0**-120, width=32),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    parts=st.lists(st.lists(VALUES, min_size=0, max_size=9), min_size=1, max_size=4).filter(any),
    density=st.floats(0.01, 1.0),
    double=st.booleans(),
    piece=st.sampled_from([2, 1 << 18]),
)
def test_the_threshold_is_that_of_the_sorted_vector(parts, density, double, piece):
    kind = np.float64 if double else np.float32
    arrays = {f"t{number}": np.array(part, dtype=kind) for number, part in enumerate(parts)}
    zeros = Tensors({**{name: np.zeros_like(array) for name, array in arrays.items()}, "steps": np.arange(3)})
    tuned = Tensors({**arrays, "steps": np.arange(3) + 9})
    before, module.PIECE = module.PIECE, piece
    try:
        (found,) = module.thresholds(zeros, [tuned], infos_of(zeros, [tuned]), density)
    finally:
        module.PIECE = before
    vector = np.sort(np.abs(np.concatenate(list(arrays.values()))).astype(np.float32))[::-1]
    assert found == vector[max(1, round(density * len(vector))) - 1]


def test_the_paper_trims_whole_models(parents, tmp_path):
    base, tuned = parents
    quiet = tmp_path / "quiet"  # a model one of whose layers hardly moved
    shutil.copytree(tuned[0], quiet)
    origin, arrays = load_file(base / "model.safetensors"), load_file(quiet / "model.safetensors")
    for name in arrays:
        if name.startswith("encoder.layers.0."):
            arrays[name] = origin[name] + 1e-3 * (arrays[name] - origin[name])
    save_file(arrays, quiet / "model.safetensors", {"format": "pt"})
    words = ["merge", "--pretrained", base, "--finetuned", quiet, tuned[1], "--alpha", "0.7", "--out", tmp_path / "out",
             "--method", "ties", "--set", "density=0.3", "scope=model", "--no-check"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    merged = load_file(tmp_path / "out" / "ties-alpha-0.7" / "model.safetensors")
    models = [load_file(folder / "model.safetensors") for folder in (base, quiet, tuned[1])]
    exact = [{name: array.astype(np.float64) for name, array in model.items()} for model in models]
    expected = papers.ties_of_models(exact[0], exact[1:], 0.7, 0.3)
    for name, value in merged.items():
        off = np.abs(value - expected[name]) > 1e-5
        assert off.mean() < 1e-3, name  # float32 may see two magnitudes at the border in another order
    record = json.loads((tmp_path / "out" / "ties-alpha-0.7" / "merge.json").read_text())
    assert record["parameters"] == {"density": 0.3, "scope": "model", "weights": None}
    # alone, the quiet layer loses all; tensor by tensor it keeps its share
    (whole,), (each,) = (
        merge(base, [quiet], [0.7], "ties", tmp_path / scope, parameters={"scope": scope}, check=False)
        for scope in ("model", "tensor")
    )
    name = "encoder.layers.0.feed_forward.intermediate_dense.weight"
    assert np.array_equal(load_file(whole.folder / "model.safetensors")[name], origin[name])
    changed = load_file(each.folder / "model.safetensors")[name] != origin[name]
    assert changed.mean() == pytest.approx(0.2, abs=0.01)


def test_what_it_does_not_go_with(parents, tmp_path):
    base, tuned = parents
    with pytest.raises(UsageError, match="scope=model is of the stored weights"):
        merge(base, tuned, [0.5], "ties", tmp_path, parameters={"scope": "model"}, weight_norm="effective")
    with pytest.raises(UsageError, match="scope is 'layer'; give tensor or model"):
        merge(base, tuned, [0.5], "ties", tmp_path, parameters={"scope": "layer"})
    with pytest.raises(UsageError, match="needs the magnitudes of whole models"):
        ties(torch.zeros(3), [torch.ones(3)], 0.5, scope="model")
