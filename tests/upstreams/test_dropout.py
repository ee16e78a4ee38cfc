"""Dropout on a CPU: the definition, torch's attention without it, and torch's operators as witnesses."""

from __future__ import annotations

import copy

import pytest
import torch
from small import save_upstream
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from speechft.upstreams import dropout as module
from speechft.upstreams.dropout import Dropout, cheapen, dropout, dropped_attention
from speechft.upstreams.load import load_upstream


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_rest_scaled(rate, dtype):
    torch.manual_seed(0)
    ones = torch.ones(301, 997, dtype=dtype)
    result = dropout(ones, rate)
    assert result.dtype == dtype and result.shape == ones.shape
    gone = result == 0
    # binomial: five standard deviations of 300 097 draws
    assert abs(gone.double().mean().item() - rate) < 5 * (rate * (1 - rate) / ones.numel()) ** 0.5
    assert torch.equal(result[~gone], torch.full_like(result[~gone], 1 / (1 - round(rate * 65536) / 65536)))
    # neighbours, and the four that come of one random number, are dropped independently
    flat = gone.flatten()[: 4 * (gone.numel() // 4)].double() - rate
    for distance in (1, 2, 3, 4, 997):
        together = (flat[:-distance] * flat[distance:]).mean().item() / (rate * (1 - rate))
        assert abs(together) < 5 / flat.numel() ** 0.5, distance


def test_gradients_pass_where_values_do():
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    result = dropout(hidden.transpose(0, 1), 0.3)
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    factor = (result / hidden.transpose(0, 1)).detach()
    assert 0 < (factor == 0).sum() < factor.numel()
    assert torch.allclose(hidden.grad.transpose(0, 1), factor * weights)


def test_the_seed_says_what_is_dropped():
    hidden = torch.randn(100)
    torch.manual_seed(1)
    first, second = dropout(hidden, 0.5), dropout(hidden, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(hidden, 0.5), first) and not torch.equal(first, second)
    state = torch.get_rng_state()
    third = dropout(hidden, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout(hidden, 0.5), third)


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False), (1e-6, False)])
def test_nothing_is_dropped(rate, training):
    hidden = torch.randn(9)
    assert torch.equal(dropout(hidden, rate, training), hidden)


def test_everything_is_dropped():
    assert not dropout(torch.ones(9), 1.0).any()


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_attention_is_torch_s(kind, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 11, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.arange(11) < torch.tensor([11, 6])[:, None]
    mask = {
        "none": None,
        "bool": mask[:, None, None],
        "float": torch.randn(2, 3, 11, 11, dtype=torch.float64).masked_fill(~mask[:, None, None], float("-inf")),
    }[kind]
    seen = []
    monkeypatch.setattr(module, "dropout", lambda weights, rate: (seen.append(rate), weights)[1])
    for scaling in (None, 0.3):
        ours = dropped_attention(query, key, value, mask, 0.25, scaling)
        theirs = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        assert torch.allclose(ours, theirs)
        probe = torch.randn_like(ours)
        found, expected = (torch.autograd.grad((one * probe).sum(), (query, key, value)) for one in (ours, theirs))
        assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
    assert seen == [0.25, 0.25]


class Operators(TorchDispatchMode):
    """The names of all operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.add(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


FAMILIES = ["hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew", "decoar2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_upstream_draws_number_by_number(family, tmp_path, request):
    decoar2 = family == "decoar2"
    source = request.getfixturevalue("decoar2_file") if decoar2 else save_upstream(tmp_path / family, family)
    upstream = load_upstream({"name": family, "source": str(source), "dropout": 0.2})
    waves = [torch.randn(4000), torch.randn(3000)]
    assert torch.equal(upstream(waves).last, upstream(waves).last)
    upstream.train()
    with Operators() as seen:
        first = upstream(waves).last
    assert not torch.equal(first, upstream(waves).last)
    assert "random_" in seen.names and not seen.names & {"bernoulli_", "native_dropout", "rand", "bernoulli"}
    first.square().sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in upstream.parameters() if one.grad is not None)


def test_attention_s_weights_are_dropped(upstream_folder):
    """The only dropout of this model: in training the output changes, and its mean over many draws stays."""
    torch.manual_seed(0)
    upstream = load_upstream({"name": "own", "source": str(upstream_folder), "dropout": 0.0})
    waves = [torch.randn(4000), torch.randn(3000)]
    for one in upstream.modules():
        if hasattr(one, "out_proj"):
            one.dropout = 0.3
    expected = upstream(waves).last
    upstream.train()
    draws = torch.stack([upstream(waves).last for _ in range(200)])
    assert draws.std(0).max() > 1e-3
    near = draws.mean(0)[0] - expected[0]
    assert near.abs().mean() < 0.2 * draws.std(0)[0].mean()


def test_what_is_saved_stays_the_same():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.3), nn.Linear(3, 2)), nn.Dropout1d(0.3)).eval()
    names = list(model.state_dict())
    cheapen(model)
    assert list(model.state_dict()) == names
    assert type(model[1][0]) is Dropout and model[1][0].p == 0.3 and not model[1][0].training
    assert type(model[2]) is nn.Dropout1d
    hidden = torch.randn(4, 3)
    assert torch.equal(copy.deepcopy(model)(hidden), model(hidden))
