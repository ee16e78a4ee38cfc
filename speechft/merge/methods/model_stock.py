"""Model Stock: θ̂ = θ0 + α · t · mean_k(τ_k), t = K cos θ / (1 + (K − 1) cos θ).

All we need is just a few fine-tuned models (2403.19522, section 4): fine-tuned weights lie on a thin shell around a
centre; the angle θ between task vectors tells how far from the pre-trained weights the point of the plane is that is
nearest to it. The angle is each tensor's own, the mean over all pairs of models where there are more than two. α = 1 is
the paper's; a smaller one goes a part of the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from speechft.merge.method import Method
from speechft.merge.methods._tensors import task_vectors, weighted


def model_stock(base: Tensor, tuned: Sequence[Tensor], alpha: float) -> Tensor:
    """Merge one tensor.

    Args:
        base: θ0, any shape.
        tuned: at least two θ'_k of the same shape.
        alpha: 1 for the paper's point.

    Returns:
        The same shape, float32 (float64 if a parent is). Task vectors at a right angle or a wider one give θ0, as do
        those that are zero.
    """
    origin, updates = task_vectors(base, tuned)
    if alpha == 0.0:
        return origin
    flat = [update.reshape(-1).double() for update in updates]
    lengths = [float(torch.linalg.vector_norm(update)) for update in flat]
    if min(lengths) == 0.0:
        return origin
    cosines = [float(flat[a] @ flat[b]) / (lengths[a] * lengths[b]) for a, b in combinations(range(len(flat)), 2)]
    cosine = min(1.0, max(0.0, sum(cosines) / len(cosines)))
    ratio = len(flat) * cosine / (1.0 + (len(flat) - 1) * cosine)
    return origin + weighted(updates, None, normalize=True).mul_(alpha * ratio)


METHOD = Method(
    "model_stock", model_stock, "θ0 + α · t · mean_k(τ_k), t = K cos θ / (1 + (K−1) cos θ), θ = ∠(τ_i, τ_j) per tensor",
    "Model Stock, arXiv 2403.19522", alpha=1.0, least=2,
)  # fmt: skip
