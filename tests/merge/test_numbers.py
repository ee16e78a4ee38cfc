"""Weights that are no numbers, and numbers that are no weights."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from speechft.errors import SpeechFTError
from speechft.merge.merge import merge
from speechft.merge.norms import square_sum

NAME = "encoder.layers.1.attention.q_proj.weight"


def changed(folder, to, **tensors):
    """A copy with other tensors."""
    shutil.copytree(folder, to)
    weights = {**load_file(folder / "model.safetensors"), **tensors}
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def with_value(folder, to, value):
    weights = load_file(folder / "model.safetensors")[NAME].copy()
    weights[3, 5] = value
    return changed(folder, to, **{NAME: weights})


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(parents, tmp_path, value, check):
    base, (tuned, other) = parents
    bad = with_value(tuned, tmp_path / "bad", value)
    told = rf"^{NAME} of {bad} is not finite \(NaN or infinite\); its weights are broken"
    for models, method in (([bad], "linear"), ([other, bad], "ties"), ([bad], "slerp")):
        with pytest.raises(SpeechFTError, match=told):
            merge(base, models, [0.5], method, tmp_path / "out", check=check)
    with pytest.raises(SpeechFTError, match=told):
        merge(bad, [tuned], [0.5], out=tmp_path / "out", check=check)
    assert not list((tmp_path / "out").iterdir())


def test_a_result_that_is_not_finite(parents, tmp_path):
    """Finite parents in half precision, an alpha far outside."""
    base, (tuned, _) = parents
    halves = []
    for place, value in ((base, 1.0), (tuned, 3e4)):
        weights = {name: one.astype(np.float16) for name, one in load_file(place / "model.safetensors").items()}
        weights[NAME][3, 5] = value
        halves.append(changed(place, tmp_path / place.name, **weights))
    with pytest.raises(SpeechFTError, match=rf"{NAME} would not be finite in the merged model"):
        merge(halves[0], halves[1:], [3.0], out=tmp_path / "out", extrapolate=True, check=False)


def test_large_weights_are_finite(parents, tmp_path):
    """Though their squares are not, in float32."""
    assert square_sum(torch.full((5000,), 1e30)) == pytest.approx(5e63, rel=1e-6)
    base, (tuned, _) = parents
    large = with_value(tuned, tmp_path / "large", 1e30)
    (model,) = merge(base, [large], [0.5], out=tmp_path / "out", check=False)
    record = json.loads((model.folder / "merge.json").read_text(), parse_constant=pytest.fail)
    assert record["update"]["norm"] == pytest.approx(1e30, rel=1e-6)
    assert load_file(model.folder / "model.safetensors")[NAME][3, 5] == pytest.approx(5e29, rel=1e-6)


def test_integers_against_floating_point(parents, tmp_path):
    base, (tuned, _) = parents
    whole = np.arange(32 * 32, dtype=np.int32).reshape(32, 32)
    integers = [changed(place, tmp_path / f"integer-{place.name}", **{NAME: whole}) for place in (base, tuned)]
    for first, other in ((base, integers[1]), (integers[0], tuned)):
        kinds = "int32 and not float32" if first == base else "float32 and not int32"
        with pytest.raises(SpeechFTError, match=rf"{NAME} is {kinds}; save both models in floating point"):
            merge(first, [other], out=tmp_path / "out", check=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["linear", "ties", "slerp"])
def test_what_is_no_number_with_a_fraction_is_kept(parents, tmp_path, method):
    more = {"counts": np.array([[3, -1], [2**40 + 1, 0]]), "mask": np.array([True, False, True]),
            "small": np.array(7, dtype=np.uint8)}  # fmt: skip
    base, (tuned, _) = parents
    first, other = (changed(place, tmp_path / place.name, **more) for place in (base, tuned))
    (model,) = merge(first, [other], [0.4], method, tmp_path / "out", check=False)
    (plain,) = merge(base, [tuned], [0.4], method, tmp_path / "plain", check=False)
    found, without = (load_file(Path(one.folder) / "model.safetensors") for one in (model, plain))
    for name, value in more.items():
        assert found[name].dtype == value.dtype and np.array_equal(found.pop(name), value)
    assert found.keys() == without.keys() and all(np.array_equal(found[name], without[name]) for name in found)
