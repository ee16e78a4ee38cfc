"""Task arithmetic: θ̂ = θ0 + α · Σ_k w_k · τ_k, τ_k = θ'_k − θ0.

Editing models with task arithmetic (2212.04089, section 2): the paper adds task vectors with one factor for all (α
here) and subtracts what a model is to forget (a negative weight).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechft.merge.method import WEIGHTS, Method
from speechft.merge.methods._tensors import at_an_end, task_vectors, weighted


def task_arithmetic(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, weights: Sequence[float] | None = None
) -> Tensor:
    """Add weighted task vectors to one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: the factor of the sum.
        weights: w_k, any sign; all 1 unless given.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    end = at_an_end(base, tuned, alpha) if alpha == 0.0 or weights in (None, [1.0]) else None
    if end is not None:
        return end
    origin, updates = task_vectors(base, tuned)
    return origin + weighted(updates, weights).mul_(alpha)


METHOD = Method(
    "task_arithmetic", task_arithmetic, "θ0 + α · Σ_k w_k (θ'_k − θ0)", "Task arithmetic, arXiv 2212.04089",
    (WEIGHTS,), elementwise=True,
)  # fmt: skip
