"""Muon against its definition; the groups of head, matrices and the rest."""

import copy

import pytest
import torch
from torch import nn

from speechft.errors import UsageError
from speechft.tasks.build import build_task
from speechft.train.optimizers import Muon, build_optimizer, orthogonalised
from speechft.train.state import load, save
from speechft.upstreams.load import load_upstream

OPTIONS = {"optimizer": "muon", "lr": 1e-2, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_updates_are_turned_towards_the_orthogonal_factor(shape):
    """The polar factor U Vᵀ, up to singular values that the iteration leaves between about 0.7 and 1.2."""
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalised(matrix) @ v.T
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-9)
    assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.3)).all()


def test_steps_are_those_of_torch_up_to_its_bfloat16():
    torch.manual_seed(0)
    ours = nn.Linear(24, 16, bias=False)
    theirs = copy.deepcopy(ours)
    mine = Muon([{"params": list(ours.parameters()), "orthogonal": True}], lr=1e-2, weight_decay=0.1)
    reference = torch.optim.Muon(
        theirs.parameters(), lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    start = ours.weight.detach().clone()
    for step in range(5):
        gradient = torch.randn(16, 24, generator=torch.Generator().manual_seed(step))
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = (theirs.weight - start).norm()
    assert moved > 0.01 and (ours.weight - theirs.weight).norm() < 0.02 * moved


def test_other_groups_are_adamw():
    torch.manual_seed(0)
    ours = nn.Linear(5, 4)
    theirs = copy.deepcopy(ours)
    mine = Muon([{"params": list(ours.parameters())}], lr=1e-2, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(3):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(torch.full((2, 5), float(step + 1))).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


@pytest.fixture(scope="module")
def upstream():
    return load_upstream("hubert_nano_random")


@pytest.fixture
def task(upstream):
    task = build_task({"kind": "masked_prediction", "codebooks": [{"features": "mfcc", "clusters": 3}]})
    task.heads = nn.ModuleList([nn.Linear(upstream.dim, 3)])
    return task


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_every_parameter_is_in_one_group_and_the_last_group_is_the_upstreams(upstream, task, name):
    optimizer = build_optimizer(upstream, task, {**OPTIONS, "optimizer": name}, head_lr=3e-2)
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for module in (upstream, task) for parameter in module.parameters())
    assert optimizer.param_groups[0]["lr"] == 3e-2 and optimizer.param_groups[-1]["lr"] == 1e-2
    matrices = [p for group in optimizer.param_groups if group.get("orthogonal") for p in group["params"]]
    layers = upstream.num_layers - 1  # of four projections and a feed-forward's two
    assert len(matrices) == (6 * layers if name == "muon" else 0)


def test_its_state_survives_a_checkpoint(upstream, task):
    optimizer = build_optimizer(upstream, task, OPTIONS, None)
    for parameter in [*upstream.parameters(), *task.parameters()]:
        parameter.grad = torch.ones_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in upstream.named_parameters()}
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    again = build_optimizer(upstream, task, OPTIONS, None)
    again.load_state_dict(saved)
    key = "model.encoder.layers.0.attention.q_proj.weight"
    matrix = dict(upstream.named_parameters())[key]
    assert torch.equal(again.state[matrix]["momentum"], optimizer.state[matrix]["momentum"])
    with torch.no_grad():
        for name, parameter in upstream.named_parameters():
            parameter.copy_(before[name])
            parameter.grad = None


def test_unknown_names_are_explained(upstream, task):
    with pytest.raises(UsageError, match=r"unknown optimizer 'sgd'.*adam, adamw, muon"):
        build_optimizer(upstream, task, {**OPTIONS, "optimizer": "sgd"}, None)


def test_a_checkpoint_brings_the_state_and_not_the_options(tmp_path):
    """Options are the configuration's, which may have been changed on purpose since."""
    learner = nn.Linear(3, 2)
    before = torch.optim.AdamW(learner.parameters(), lr=1e-2, weight_decay=0.1, betas=(0.5, 0.6))
    learner(torch.ones(1, 3)).sum().backward()
    before.step()
    checkpoint = save(tmp_path, 1, learner, None, {"optimizer": before.state_dict()}, {}, keep=1)
    after = torch.optim.AdamW(learner.parameters(), lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98))
    load(checkpoint, learner, None, after)
    (group,) = after.param_groups
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (1e-3, 0.0, (0.9, 0.98))
    for parameter in learner.parameters():
        assert torch.equal(after.state[parameter]["exp_avg"], before.state[parameter]["exp_avg"])
