"""The penalty and its gradient against the closed formula, in float64 numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from speechft.strategies.build import build_strategy
from speechft.strategies.l2 import L2Penalty
from speechft.strategies.penalty import penalised
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream


def test_penalty_and_gradient_by_the_formula(upstream_folder):
    """λ Σ (θ − θ0)², 2λ(θ − θ0), over what trains and nothing else."""
    upstream = load_upstream(upstream_folder)
    strategy = build_strategy({"name": "own", "l2": 0.3, "frozen_parts": ["cnn"], "frozen_parameters": ["*.bias"]})
    start = {name: p.detach().double().numpy().copy() for name, p in upstream.named_parameters()}
    (penalty,) = strategy.begin(upstream, 10, seed=0)
    strategy.enter(upstream, nn.Linear(1, 1), 0, 10)
    assert penalty.value(None).item() == 0.0
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    value = penalty.value(None)
    value.backward()
    free = [name for name in start if "feature_extractor" not in name and not name.endswith(".bias")]
    named = dict(upstream.named_parameters())
    moved = {name: named[name].detach().double().numpy() - start[name] for name in start}
    assert value.item() == pytest.approx(0.3 * sum((moved[name] ** 2).sum() for name in free), rel=1e-5)
    for name, parameter in named.items():
        if name in free:
            np.testing.assert_allclose(parameter.grad.numpy(), 0.6 * moved[name], rtol=1e-5, atol=1e-7)
        else:
            assert parameter.grad is None


def test_while_the_upstream_is_frozen_there_is_none(upstream_folder):
    upstream = load_upstream(upstream_folder)
    penalty = L2Penalty(dict(upstream.named_parameters()), 1.0)
    upstream.requires_grad_(False)
    loss, figures = penalised(torch.tensor(2.0), {"accuracy": 1.0}, [penalty], None)
    assert loss.item() == 2.0 and figures == {"accuracy": 1.0}


def test_a_run_adds_it_and_moves_less(train_words, tmp_path, upstream_folder):
    """The logged loss is the task's plus the penalty; a stronger one keeps θ' nearer to θ0."""
    away = {}
    for weight in (0.01, 10.0):
        run = finetune([*train_words, "strategy=l2", f"strategy.l2={weight}"], tmp_path / str(weight))
        lines = [line for line in read_metrics(run.metrics) if "loss" in line]
        for line in lines:
            assert line["loss"] == pytest.approx(line["task_loss"] + line["l2_penalty"], rel=1e-5)
        assert lines[0]["l2_penalty"] == 0.0 and lines[-1]["l2_penalty"] > 0.0
        before, after = load_upstream(upstream_folder), load_upstream(run.finetuned)
        away[weight] = sum(
            float((a - b).square().sum()) for a, b in zip(before.parameters(), after.parameters(), strict=True)
        )
    assert away[10.0] < 0.5 * away[0.01]
