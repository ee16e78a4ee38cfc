"""DARE, then TIES' election: θ̂ = θ0 + α · merge(elect(δ̂_k)), δ̂ = mask ⊙ τ / density.

DARE (2311.03099, section 3.2) drops elements of each task vector at random in place of TIES' trimming (2306.01708,
section 3.2); sign election and disjoint mean are TIES'.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechft.merge.method import SEED, WEIGHTS, Method
from speechft.merge.methods._tensors import drop, elected, task_vectors
from speechft.merge.methods.dare_linear import DENSITY


def dare_ties(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, density: float = 0.5,
    weights: Sequence[float] | None = None, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: λ of TIES.
        density: 1 − p of DARE.
        weights: w_k in the election and the mean; all 1 unless given.
        seed: this tensor's own; with an update's values it fixes what is dropped.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    return origin + elected([drop(update, density, seed) for update in updates], weights).mul_(alpha)


METHOD = Method(
    "dare_ties", dare_ties, "θ0 + α · disjoint mean of δ̂_k with the elected sign, δ̂_k = τ_k dropped and rescaled",
    "DARE, arXiv 2311.03099; TIES, arXiv 2306.01708", (DENSITY, WEIGHTS, SEED), draws=True,
)  # fmt: skip
