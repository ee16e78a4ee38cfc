"""Whole models merged by mergekit, installed in an environment of its own, beside ours.

python -m venv somewhere && somewhere/bin/pip install mergekit
MERGEKIT_PYTHON=somewhere/bin/python pytest -m slow tests/merge/test_mergekit.py
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from speechft.checkpoints.folder import canonical_name
from speechft.merge.merge import merge

PYTHON = os.environ.get("MERGEKIT_PYTHON")
ALPHA = 0.3
WEIGHTS = [1.0, 0.5]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="MERGEKIT_PYTHON names no python that has mergekit")
def test_the_same_models_as_mergekits(parents, tmp_path):
    """Shares are such that of every tensor a whole number of elements stays; both round others their own way."""
    base, tuned = parents

    def job(method, shared=None, **each):
        models = [
            {"model": str(path), "parameters": {"weight": weight, **each}}
            for path, weight in zip(tuned, WEIGHTS, strict=True)
        ]
        parameters = {"lambda": ALPHA, "normalize": False, **(shared or {})}
        return {"merge_method": method, "base_model": str(base), "models": models, "parameters": parameters}

    jobs = {
        "task_arithmetic": job("task_arithmetic"),
        "ties": job("ties", {"normalize": True}, density=0.5),
        "breadcrumbs": job("breadcrumbs", density=0.5, gamma=0.25),
        "slerp": {"merge_method": "slerp", "base_model": str(base), "parameters": {"t": ALPHA},
                  "models": [{"model": str(path)} for path in (base, tuned[0])]},
        "linear": {"merge_method": "linear", "parameters": {"normalize": False},
                   "models": [{"model": str(path), "parameters": {"weight": weight}}
                              for path, weight in zip((base, *tuned), (1 - ALPHA, ALPHA / 2, ALPHA / 2), strict=True)]},
        "model_stock": {"merge_method": "model_stock", "base_model": str(base),
                        "models": [{"model": str(path)} for path in tuned]},
        "dare_linear": job("dare_linear", {"rescale": False}, density=1.0),
        "dare_ties": job("dare_ties", {"rescale": False, "normalize": True}, density=1.0),
    }  # fmt: skip
    listed = {str(tmp_path / name): {"dtype": "float32", **config} for name, config in jobs.items()}
    (tmp_path / "jobs.json").write_text(json.dumps(listed))
    worker = Path(__file__).with_name("mergekit_worker.py")
    done = subprocess.run([str(PYTHON), str(worker), str(tmp_path / "jobs.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    parameters = {
        "task_arithmetic": {"weights": WEIGHTS}, "ties": {"density": 0.5, "weights": WEIGHTS},
        "breadcrumbs": {"smallest": 0.25, "largest": 0.25, "weights": WEIGHTS},
        "dare_linear": {"density": 1.0, "weights": WEIGHTS, "normalize": False},
        "dare_ties": {"density": 1.0, "weights": WEIGHTS},
    }  # fmt: skip
    for name in jobs:
        models = tuned[:1] if name == "slerp" else tuned
        alpha = 1.0 if name == "model_stock" else ALPHA
        (ours,) = merge(base, models, [alpha], name, tmp_path / "ours", parameters=parameters.get(name), check=False)
        one = load_file(ours.folder / "model.safetensors")
        theirs = {}
        for file in (tmp_path / name).glob("*.safetensors"):
            theirs.update({canonical_name(key): value for key, value in load_file(file).items()})
        assert one.keys() == theirs.keys(), name
        tolerance, before = 1e-5, load_file(base / "model.safetensors")
        left_out: set[str] = set()
        if name == "slerp":  # mergekit takes the angle from a cosine in float32, and none at all below 1.8 degrees;
            tolerance = 2e-4  # a tensor of zeros has no direction, and mergekit says that of 90 degrees
            left_out = {key for key, value in before.items() if not value.any()}
        if name == "model_stock":  # mergekit also moves where task vectors point apart, away from them
            left_out = {key for key in one if np.array_equal(one[key], before[key])}
        assert len(left_out) < len(one)
        one = {key: value for key, value in one.items() if key not in left_out}
        for key, value in one.items():
            np.testing.assert_allclose(value, theirs[key], atol=tolerance, err_msg=f"{name} {key}")
