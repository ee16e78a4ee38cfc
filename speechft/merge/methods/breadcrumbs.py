"""Model Breadcrumbs: θ̂ = θ0 + α · Σ_k w_k · m_k ⊙ τ_k.

Scaling multi-task model merging with sparse masks (2312.06795, section 3): in every layer's task vector both the
smallest values and the few largest, outliers, are masked; what is left is added with one factor (α here). The paper
works layer by layer, as is done here, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.errors import UsageError
from speechft.merge.method import WEIGHTS, Method, Parameter
from speechft.merge.methods._tensors import task_vectors, weighted


def breadcrumbs(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, smallest: float = 0.85, largest: float = 0.01,
    weights: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: the factor of the sum.
        smallest: share of the elements that is masked for being small (β of the paper).
        largest: share that is masked for being large (1 − γ of the paper).
        weights: w_k; all 1 unless given.

    Returns:
        The same shape, float32 (float64 if a parent is). A tensor of so few elements that none would be left keeps its
        largest.

    Raises:
        UsageError: the two shares leave nothing.
    """
    if smallest + largest >= 1.0:
        raise UsageError(f"smallest {smallest:g} and largest {largest:g} leave nothing", "give shares that sum below 1")
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    return origin + weighted([_between(update, smallest, largest) for update in updates], weights).mul_(alpha)


def _between(update: Tensor, smallest: float, largest: float) -> Tensor:
    flat = update.reshape(-1)
    low, high = round(smallest * flat.numel()), round(largest * flat.numel())
    stays = flat.numel() - low - high
    if stays <= 0:
        low, stays = flat.numel() - min(1, flat.numel()), min(1, flat.numel())
    # An order by magnitude, equal ones as they come: the smallest first, then those that stay, then the outliers.
    chosen = torch.argsort(flat.abs(), stable=True)[low : low + stays]
    return torch.zeros_like(flat).scatter_(0, chosen, flat[chosen]).reshape(update.shape)


METHOD = Method(
    "breadcrumbs", breadcrumbs, "θ0 + α · Σ_k w_k m_k ⊙ τ_k, m_k masks the smallest and the largest of each tensor",
    "Model Breadcrumbs, arXiv 2312.06795",
    (
        Parameter("smallest", "float", 0.85, "share of each update that is too small to stay"),
        Parameter("largest", "float", 0.01, "share of each update that is too large to stay"),
        WEIGHTS,
    ),
)  # fmt: skip
