"""Rates by layer, worked out by hand for a model of two layers."""

import pytest
import torch
from torch import nn

from speechft.strategies.build import build_strategy
from speechft.strategies.layer_decay import rate_factors
from speechft.tasks.build import build_task
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.train.optimizers import build_optimizer
from speechft.upstreams.load import load_upstream

# Two layers, decay 1/2: the top one 1, the one below 1/2, all before them 1/4.
HUBERT = {"cnn": 0.25, "projection": 0.25, "position": 0.25, "mask_embedding": 0.25, "layers.0": 0.5, "layers.1": 1.0}
WHISPER = {"cnn": 0.25, "layers.0": 0.5, "layers.1": 1.0, "layer_norm": 1.0}


@pytest.mark.parametrize(("folder", "table"), [("upstream_folder", HUBERT), ("whisper_folder", WHISPER)])
def test_factors_by_hand(folder, table, request):
    upstream = load_upstream(request.getfixturevalue(folder))
    factors = rate_factors(upstream, 0.5)
    assert {part: {factors[id(p)] for p in group} for part, group in upstream.parts().items()} == {
        part: {factor} for part, factor in table.items()
    }
    fixed = {id(p) for name, p in upstream.named_parameters() if "embed_positions" in name}  # Whisper's sinusoids
    assert factors.keys() == {id(parameter) for parameter in upstream.parameters()} - fixed
    assert len(fixed) == (folder == "whisper_folder")


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_the_optimiser_has_them(upstream_folder, name):
    upstream = load_upstream(upstream_folder)
    task = build_task({"kind": "masked_prediction", "codebooks": [{"features": "mfcc", "clusters": 3}]})
    task.heads = nn.ModuleList([nn.Linear(upstream.dim, 3)])
    options = {"optimizer": name, "lr": 1e-2, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.0}
    optimizer = build_optimizer(upstream, task, options, 3e-2, rate_factors(upstream, 0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in task.parameters()} == {3e-2} and optimizer.param_groups[-1]["lr"] == 1e-2
    for part, group in upstream.parts().items():
        assert [rates[id(p)] for p in group] == pytest.approx([1e-2 * HUBERT[part]] * len(group))
    assert len(rates) == len([*upstream.parameters(), *task.parameters()])
    turned = [id(p) for group in optimizer.param_groups if group.get("orthogonal") for p in group["params"]]
    assert len(turned) == (12 if name == "muon" else 0)


def test_adams_first_step_shows_them(train_words, tmp_path, upstream_folder):
    """Adam's first step is lr · g/|g|: how far a weight moves is its rate."""
    words = ["trainer.steps=1", "trainer.warmup=0", "trainer.hold=1", "trainer.eps=1e-20", "strategy.layer_decay=0.5"]
    run = finetune([*train_words, "strategy=regular", *words], tmp_path / "run")
    before, after = load_upstream(upstream_folder), load_upstream(run.finetuned)
    moved = after.parts()
    for part, group in before.parts().items():
        if part == "mask_embedding":
            continue
        steps = torch.cat([(b - a).abs().flatten() for a, b in zip(group, moved[part], strict=True)])
        assert steps.max().item() == pytest.approx(1e-3 * HUBERT[part], rel=1e-2)
    assert read_metrics(run.metrics)[-2].get("lr", 1e-3) == 1e-3
    assert build_strategy({"name": "own"}).rate_factors(before) is None
