"""TIES: θ̂ = θ0 + α · merge(elect(trim(τ_k))).

Resolving interference when merging models (2306.01708, section 3.2): of every task vector only the largest values stay
(trim), every element takes the sign that has more mass (elect), and the mean is taken over those that have it (disjoint
merge). The paper trims a task vector as a whole; here, as in mergekit, every tensor by itself, so that weights can
stream: then each keeps its share, however little it moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechft.merge.method import WEIGHTS, Method, Parameter
from speechft.merge.methods._tensors import elected, largest, task_vectors


def ties(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, density: float = 0.2, weights: Sequence[float] | None = None
) -> Tensor:
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: λ of the paper.
        density: the share of each tensor's update that stays (k of the paper).
        weights: w_k in the election and the mean; all 1 unless given.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    return origin + elected([largest(update, density) for update in updates], weights).mul_(alpha)


METHOD = Method(
    "ties", ties, "θ0 + α · disjoint mean of trimmed τ_k with the elected sign, per tensor", "TIES, arXiv 2306.01708",
    (Parameter("density", "float", 0.2, "share of each update that stays, the largest first", open_low=True), WEIGHTS),
)  # fmt: skip
