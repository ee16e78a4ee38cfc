"""DARE, then the mean: θ̂ = θ0 + α · Σ_k w_k · δ̂_k / Σ_k w_k, δ̂ = mask ⊙ τ / density.

Language models are super Mario (2311.03099, section 3.2): every element of a task vector is dropped at random, and what
stays is scaled up, so that the expectation is the task vector itself; over all seeds the mean of this method is
`linear`. With `normalize=false` the sum is not divided: task arithmetic on what stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechft.merge.method import SEED, WEIGHTS, Method, Parameter
from speechft.merge.methods._tensors import drop, task_vectors, weighted

DENSITY = Parameter("density", "float", 0.5, "probability of an element of an update to stay", open_low=True)


def dare_linear(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, density: float = 0.5,
    weights: Sequence[float] | None = None, normalize: bool = True, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: weight of the fine-tuned side.
        density: 1 − p of the paper.
        weights: w_k; all 1 unless given.
        normalize: divide by the sum of the weights.
        seed: this tensor's own; with an update's values it fixes what is dropped.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    kept = [drop(update, density, seed) for update in updates]
    return origin + weighted(kept, weights, normalize).mul_(alpha)


METHOD = Method(
    "dare_linear", dare_linear, "θ0 + α · Σ_k w_k δ̂_k / Σ_k w_k, δ̂_k = τ_k dropped at random, rescaled by 1/density",
    "DARE, arXiv 2311.03099",
    (DENSITY, WEIGHTS, Parameter("normalize", "bool", True, "divide by the sum of the weights"), SEED), draws=True,
)  # fmt: skip
