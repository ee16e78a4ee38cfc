"""DELLA: θ̂ = θ0 + α · merge(elect(MagPrune(τ_k))).

Reducing interference in model merging through magnitude-based sampling (2406.11617, section 3): the elements of each
row of a task vector are ranked by magnitude; the smaller an element, the likelier it is dropped, from p + ε/2 down to
p − ε/2 in equal steps; what stays is divided by its own probability to stay. Signs are elected and the mean is taken
over those that have them, as in TIES. A row is the last dimension; a vector is one row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.errors import UsageError
from speechft.merge.method import SEED, WEIGHTS, Method, Parameter
from speechft.merge.methods._tensors import drop, elected, task_vectors


def della(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, density: float = 0.5, epsilon: float = 0.2,
    weights: Sequence[float] | None = None, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: λ of the paper.
        density: 1 − p of the paper, the mean probability to stay.
        epsilon: ε of the paper: the probabilities of a row spread over density ± ε/2.
        weights: w_k in the election and the mean; all 1 unless given.
        seed: this tensor's own; with an update's values it fixes what is dropped.

    Returns:
        The same shape, float32 (float64 if a parent is).

    Raises:
        UsageError: density ± epsilon/2 leaves (0, 1].
    """
    if not (density - epsilon / 2 > 0 and density + epsilon / 2 <= 1):
        raise UsageError(
            f"density {density:g} ± epsilon/2 = {epsilon / 2:g} is no probability", "give a smaller epsilon"
        )
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    kept = [drop(update, _stays(update, density, epsilon), seed) for update in updates]
    return origin + elected(kept, weights).mul_(alpha)


def _stays(update: Tensor, density: float, epsilon: float) -> Tensor:
    """Each element's probability to stay: rank 0 (the smallest of its row) has density − ε/2, the largest + ε/2."""
    if update.dim() == 0 or update.numel() == 0 or update.shape[-1] < 2:
        return torch.full_like(update, density)
    rows = update.abs().reshape(-1, update.shape[-1])
    ranks = torch.argsort(torch.argsort(rows, dim=1, stable=True), dim=1)
    share = ranks.to(update.dtype) / (rows.shape[1] - 1)
    return (density - epsilon / 2 + epsilon * share).reshape(update.shape)


METHOD = Method(
    "della", della, "θ0 + α · disjoint mean of MagPrune(τ_k) with the elected sign, ranks per row",
    "DELLA, arXiv 2406.11617",
    (
        Parameter("density", "float", 0.5, "mean probability of an element of an update to stay", open_low=True),
        Parameter("epsilon", "float", 0.2, "spread of the probabilities between the smallest and the largest"),
        WEIGHTS,
        SEED,
    ),
    draws=True,
)  # fmt: skip
