"""Fisher merging: θ̂ = Σ_i λ_i F_i θ_i / Σ_i λ_i F_i over θ0 (λ_0 = 1 − α) and the θ'_k (λ_k = α/K).

Merging models with Fisher-weighted averaging (2111.09832, section 3.2, equation 4, with the pre-trained model as one of
those merged, section 4.2): each weight counts by how much its model's output depends on it, the diagonal of the Fisher
information (`merge/collect.py` says of which output). Equal Fisher information gives `linear`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.merge.method import Method, Parameter
from speechft.merge.methods._tensors import at_an_end, no_extrapolation, task_vectors


def fisher(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, statistics: Sequence[Tensor | None], floor: float = 1e-6
) -> Tensor:
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ'_k, each of the same shape.
        alpha: weight of the fine-tuned side.
        statistics: F of θ0 and of every θ'_k, each of the same shape and at least 0, scaled to a mean of 1 over the
            model; where one is None (no output depends on this tensor) all count alike.
        floor: the least F.

    Returns:
        The same shape, float32 (float64 if a parent is).

    Raises:
        UsageError: α outside [0, 1], where weights would be negative.
    """
    no_extrapolation("fisher", alpha)
    end = at_an_end(base, tuned, alpha)
    if end is not None:
        return end
    origin, updates = task_vectors(base, tuned)
    if any(one is None for one in statistics):
        weights = [torch.ones_like(origin) for _ in statistics]
    else:
        weights = [one.to(origin.dtype).clamp(min=floor) for one in statistics if one is not None]
    total, update = (1.0 - alpha) * weights[0], torch.zeros_like(origin)
    for weight, change in zip(weights[1:], updates, strict=True):
        share = alpha / len(updates) * weight
        total += share
        update += share * change
    return origin + update / total


METHOD = Method(
    "fisher", fisher, "Σ_i λ_i F_i θ_i / Σ_i λ_i F_i, λ_0 = 1 − α, λ_k = α/K, F the Fisher information's diagonal",
    "Fisher merging, arXiv 2111.09832",
    (Parameter("floor", "float", 1e-6, "the least Fisher information, its mean being 1", open_low=True),),
    elementwise=True, statistics="fisher",
)  # fmt: skip
