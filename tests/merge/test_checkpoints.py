"""Averaging the checkpoints of a run: SWA, EMA, and any other method."""

import json
import shutil

import numpy as np
import papers
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from speechft.cli.main import main
from speechft.errors import SpeechFTError
from speechft.merge.merge import merge, merge_run
from speechft.runs import Run
from speechft.train import state
from speechft.upstreams.load import load_upstream


class Learner(nn.Module):
    def __init__(self, upstream):
        super().__init__()
        self.upstream, self.task = upstream, nn.Linear(4, 3)


@pytest.fixture(params=["plain", "in pieces"])
def run(request, parents, tmp_path):
    """A finished run whose upstream was frozen at step 5 and moved by steps 10, 15 and 100, saved by training."""
    base, (tuned, _) = parents
    folder = tmp_path / "run"
    upstream = load_upstream(base, chunk_seconds=None if request.param == "plain" else 30.0)
    learner = Learner(upstream)
    generator = torch.Generator().manual_seed(0)
    for step in (5, 10, 15, 100):
        if step > 5:
            with torch.no_grad():
                for parameter in upstream.parameters():
                    parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        state.save(folder / "checkpoints", step, learner, None, {}, {}, keep=9)
    shutil.copytree(tuned, folder / "finetuned")
    (folder / "config.yaml").write_text("name: x\n")
    identity = load_upstream(base).identity
    (folder / "pretrained.json").write_text(json.dumps({"source": str(base), "sha256": identity.sha256}))
    return Run(folder)


def arrays(run):
    found = []
    for step in (10, 15, 100):
        state_ = load_file(run.checkpoints / f"step-{step}" / "learner.safetensors")
        found.append({name.split("model.", 1)[1]: value for name, value in state_.items() if "model." in name})
    return found


def test_swa_and_ema(run, parents, tmp_path, capsys):
    base, _ = parents
    origin, later = load_file(base / "model.safetensors"), arrays(run)
    steps = state.checkpoints(run.checkpoints)
    for decay in (1.0, 0.6):
        out = tmp_path / f"out{decay}"
        (model,) = merge_run(run, [0.5], "average", out, checkpoints=steps, parameters={"decay": decay}, check=False)
        said = capsys.readouterr().err
        assert "step-5 is left out" in said and "merging 3 checkpoints: step-10, step-15, step-100" in said
        merged = load_file(model.folder / "model.safetensors")
        assert merged.keys() == origin.keys()
        for name, value in merged.items():
            tuned = [one[name].astype(np.float64) for one in later]
            np.testing.assert_allclose(value, papers.average(origin[name], tuned, 0.5, decay), atol=1e-5)
        record = json.loads((model.folder / "merge.json").read_text())
        assert [parent["path"].rsplit("/", 1)[1] for parent in record["parents"][1:]] == [
            "step-10",
            "step-15",
            "step-100",
        ]
        assert load_upstream(model.folder).identity.normalize is False


def test_the_command_and_single_checkpoints(run, parents, tmp_path, capsys):
    base, _ = parents
    assert main(["merge", str(run.folder), "--checkpoints", "--method", "average", "--set", "decay=0.5"]) == 0
    assert capsys.readouterr().out.strip() == str(run.merged / "average-alpha-0.25")
    assert main(["merge", str(run.folder), "--checkpoints"]) == 0  # is that too, and no plain merge
    assert capsys.readouterr().out.strip() == str(run.merged / "average-alpha-0.25")
    assert main(["merge", str(run.folder), "--method", "average"]) == 2
    assert "average is of a run's checkpoints, and its result is one model" in capsys.readouterr().err
    last = run.checkpoints / "step-100"
    (one,) = merge(base, [last], [1.0], out=tmp_path / "one", check=False)
    merged, expected = load_file(one.folder / "model.safetensors"), arrays(run)[-1]
    assert all(np.array_equal(merged[name], expected[name]) for name in merged)
    frozen = [run.checkpoints / "step-5"]
    with pytest.raises(SpeechFTError, match="no checkpoint of the run has moved"):
        merge_run(run, [0.5], "average", tmp_path, checkpoints=frozen)
    with pytest.raises(SpeechFTError, match="has no checkpoints left"):
        merge_run(run, [0.5], "average", tmp_path, checkpoints=[])


def test_checkpoints_with_adapters_are_refused(run, tmp_path):
    """Their plain weights are θ0's: merged as they are, nothing of the training would be in them."""
    last = run.checkpoints / "step-100" / "learner.safetensors"
    tensors = load_file(last)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name.replace("q_proj.weight", "q_proj.lora_A.default.weight")] = np.zeros((2, 4), dtype=np.float32)
    save_file(tensors, last)
    with pytest.raises(SpeechFTError, match=r"step-100 holds θ0's weights and adapters .*; merge .*finetuned"):
        merge_run(run, [0.5], "average", tmp_path, checkpoints=state.checkpoints(run.checkpoints))
