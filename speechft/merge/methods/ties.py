"""TIES: θ̂ = θ0 + α · merge(elect(trim(τ_k))).

Resolving interference when merging models (2306.01708, section 3.2): of every task vector only the largest values stay
(trim), every element takes the sign that has more mass (elect), and the mean is taken over those that have it (disjoint
merge).

The paper trims a task vector as a whole, so that a layer that hardly moved may lose all of its update: `scope=model`.
mergekit and peft trim every tensor by itself, so that each keeps its share, however little it moved: `scope=tensor`,
which needs one pass over the weights less, and is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.errors import UsageError
from speechft.merge.method import WEIGHTS, Method, Parameter
from speechft.merge.methods._tensors import elected, largest, task_vectors


def ties(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, density: float = 0.2, scope: str = "tensor",
    weights: Sequence[float] | None = None, thresholds: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: λ of the paper.
        density: the share of each update that stays (k of the paper).
        scope: the update that it is a share of: `tensor`, this one's, or `model`, the whole task vector.
        weights: w_k in the election and the mean; all 1 unless given.
        thresholds: with `model`: the magnitude, in float32, from which on the values of each τ_k stay.

    Returns:
        The same shape, float32 (float64 if a parent is).

    Raises:
        UsageError: `scope=model` without thresholds.
    """
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    if scope == "tensor":
        trimmed = [largest(update, density) for update in updates]
    elif thresholds is None:
        raise UsageError("scope=model needs the magnitudes of whole models", "merge whole models, or use scope=tensor")
    else:
        trimmed = [
            torch.where(update.abs().float() >= threshold, update, torch.zeros_like(update))
            for update, threshold in zip(updates, thresholds, strict=True)
        ]
    return origin + elected(trimmed, weights).mul_(alpha)


METHOD = Method(
    "ties", ties, "θ0 + α · disjoint mean of trimmed τ_k with the elected sign", "TIES, arXiv 2306.01708",
    (
        Parameter("density", "float", 0.2, "share of each update that stays, the largest first", open_low=True),
        Parameter("scope", "word", "tensor", "what it is a share of: each tensor's update, or as in the paper the "
                  "whole model's", words=("tensor", "model")),
        WEIGHTS,
    ),
    trims=True,
)  # fmt: skip
