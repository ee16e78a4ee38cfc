"""The penalty against a naive formula and autograd; what it costs nothing to."""

import copy

import pytest
import torch
from torch import nn

from speechft.data.loader import Batch
from speechft.strategies.build import build_strategy
from speechft.strategies.feature_similarity import FeaturePenalty, FeatureSimilarity
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream


@pytest.fixture
def pair(upstream_folder):
    """θ, without dropout and in training, and an untouched θ0."""
    settings = {"name": "tiny", "source": str(upstream_folder), "dropout": 0.0}
    return load_upstream(settings).train(), load_upstream(settings)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return Batch([torch.randn(9000), torch.randn(5000)], [])


def _naive(kind, state, anchor, frames):
    """Frame by frame, in float64."""
    terms = []
    for row, count in enumerate(frames.tolist()):
        for frame in range(count):
            own, theirs = state[row, frame].double(), anchor[row, frame].double()
            if kind == "mse":
                terms.append(((own - theirs) ** 2).mean())
            else:
                terms.append(1 - (own @ theirs) / (own.norm() * theirs.norm()))
    return sum(terms) / len(terms)


def _move(upstream):
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("kind", ["cosine", "mse"])
@pytest.mark.parametrize("layers", [None, [-1], [0, 2], [1]])
def test_value_and_gradient_by_a_naive_formula(pair, batch, kind, layers):
    upstream, anchor = pair
    chosen = None if layers is None else tuple(layers)
    penalty = FeaturePenalty(upstream, FeatureSimilarity(0.7, kind, chosen))
    _move(upstream)
    reference = copy.deepcopy(anchor).train()
    reference.load_state_dict(upstream.state_dict())

    seen = upstream(batch.waves, last_only=True)  # what a task does
    assert torch.equal(seen.last, reference(batch.waves).last)
    value = penalty.value(batch)
    value.backward()

    own, theirs = reference(batch.waves), anchor(batch.waves)
    which = range(3) if layers is None else layers
    by_hand = sum(_naive(kind, own.states[at], theirs.states[at].detach(), own.frames) for at in which) / len(which)
    (0.7 * by_hand).backward()
    assert value.item() == pytest.approx(0.7 * by_hand.item(), rel=1e-5)
    for (name, ours), expected in zip(upstream.named_parameters(), reference.parameters(), strict=True):
        if expected.grad is None:
            assert ours.grad is None or not ours.grad.any(), name
        else:
            assert torch.allclose(ours.grad, expected.grad, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_at_theta_zero_it_is_zero(pair, batch, kind):
    upstream, _ = pair
    penalty = FeaturePenalty(upstream, FeatureSimilarity(1.0, kind))
    upstream(batch.waves)
    assert penalty.value(batch).item() == pytest.approx(0.0, abs=1e-6)


def test_a_task_that_leaves_no_states_is_heard_once_more(pair, batch):
    upstream, _ = pair
    penalty = FeaturePenalty(upstream, FeatureSimilarity(1.0))
    _move(upstream)
    alone = penalty.value(batch)
    upstream(batch.waves, True)
    assert alone.item() == pytest.approx(penalty.value(batch).item(), rel=1e-6) and alone.item() > 0


def test_frozen_or_evaluated_there_is_none_and_nothing_is_kept(pair, batch):
    upstream, _ = pair
    strategy = build_strategy({"name": "own", "freeze_fraction": 0.5, "feature_similarity": {"weight": 1.0}})
    (penalty,) = strategy.begin(upstream, 10, seed=0)
    strategy.enter(upstream, nn.Linear(1, 1), 0, 10)
    assert len(upstream(batch.waves, last_only=True).states) == 1 and penalty.value(batch) is None
    strategy.enter(upstream, nn.Linear(1, 1), 5, 10)
    with torch.no_grad():
        assert len(upstream(batch.waves, last_only=True).states) == 1 and penalty.value(batch) is None
    assert not penalty._heard and len(upstream(batch.waves, last_only=True).states) == 3
    assert not any("anchor" in name for name in upstream.state_dict())


def test_a_run_with_it_stays_nearer(train_words, tmp_path, upstream_folder, batch):
    """The strategy's own measure: similarity of the last states to θ0's."""
    away = {}
    for weight in (0.0, 30.0):
        words = ["strategy=feature_similarity", f"strategy.feature_similarity.weight={weight}"]
        run = finetune([*train_words, *words], tmp_path / str(weight))
        lines = [line for line in read_metrics(run.metrics) if "loss" in line]
        assert all(("feature_penalty" in line) == (weight > 0 and line["phase"] == "full") for line in lines)
        with torch.no_grad():
            before, after = load_upstream(upstream_folder)(batch.waves), load_upstream(run.finetuned)(batch.waves)
        away[weight] = float(_naive("cosine", after.last, before.last, before.frames))
    assert away[30.0] < 0.5 * away[0.0]
