"""The methods beside peft's functions for adapters (`peft.utils.merge_utils`), where those do what the papers say.

Ours are not made of them: `magnitude_based_pruning` keeps nothing of a tensor of few elements, `ties` elects without
the weights that it then applies, divides by counts rather than by weights, and sees a sum of zero as positive.
"""

import numpy as np
import pytest
import torch
from peft.utils import merge_utils as peft

from speechft.merge.registry import METHODS


def models(count):
    generator = np.random.default_rng(3)
    base = generator.standard_normal((8, 25))
    return base, [base + 0.1 * generator.standard_normal((8, 25)) for _ in range(count)]


def ours(name, base, tuned, alpha, **parameters):
    method = METHODS[name]
    tensors = [torch.from_numpy(one) for one in tuned]
    return method.function(torch.from_numpy(base), tensors, alpha, **method.read(parameters, len(tuned))).numpy()


def updates(base, tuned):
    return [torch.from_numpy(one - base) for one in tuned]


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties(density):
    base, tuned = models(3)
    theirs = peft.ties(updates(base, tuned), torch.ones(3), density, "total")
    np.testing.assert_allclose(ours("ties", base, tuned, 0.4, density=density), base + 0.4 * theirs.numpy(), atol=1e-12)


def test_task_arithmetic():
    base, tuned = models(3)
    weights = [1.0, 0.3, -0.5]
    theirs = peft.task_arithmetic(updates(base, tuned), torch.tensor(weights, dtype=torch.float64))
    np.testing.assert_allclose(
        ours("task_arithmetic", base, tuned, 0.4, weights=weights), base + 0.4 * theirs.numpy(), atol=1e-12
    )


def test_dare_with_the_same_draws(monkeypatch):
    """Whatever is kept: it is rescaled, elected and summed alike."""
    from speechft.merge.methods import dare_linear, dare_ties

    base, tuned = models(3)
    masks = iter([torch.rand(8, 25, dtype=torch.float64) < 0.4 for _ in range(3)] * 4)
    monkeypatch.setattr(peft.torch, "bernoulli", lambda probabilities: next(masks).to(probabilities.dtype))

    def drop(update, keep, seed):
        return torch.where(next(masks), update / keep, torch.zeros_like(update))

    for module in (dare_linear, dare_ties):
        monkeypatch.setattr(module, "drop", drop)
    ones = torch.ones(3, dtype=torch.float64)
    linear = ours("dare_linear", base, tuned, 0.7, density=0.4, normalize=False)
    theirs = peft.dare_linear(updates(base, tuned), ones, 0.4)
    np.testing.assert_allclose(linear, base + 0.7 * theirs.numpy(), atol=1e-12)
    ties = ours("dare_ties", base, tuned, 0.7, density=0.4)
    theirs = peft.dare_ties(updates(base, tuned), ones, 0.4, "total")
    np.testing.assert_allclose(ties, base + 0.7 * theirs.numpy(), atol=1e-12)
