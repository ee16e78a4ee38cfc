"""Linear interpolation: θ̂ = θ0 + α · mean_k(θ'_k − θ0).

Speech-FT (2502.12672, section III-B); with one fine-tuned model it is WiSE-FT (2109.01903), and the mean of several is
a model soup's (2203.05482) taken on task vectors (2212.04089).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.merge.method import Method
from speechft.merge.methods._tensors import at_an_end, task_vectors


def linear(base: Tensor, tuned: Sequence[Tensor], alpha: float) -> Tensor:
    """Interpolate one tensor.

    Args:
        base: θ0, any shape, floating point.
        tuned: θ'_k, each of the same shape.
        alpha: weight of the fine-tuned side; 0 gives θ0 and, with one θ', 1 gives θ', both bit for bit.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    end = at_an_end(base, tuned, alpha)
    if end is not None:
        return end
    origin, (update, *others) = task_vectors(base, tuned)
    for other in others:
        update += other
    return torch.add(origin, update, alpha=alpha / len(tuned))


METHOD = Method("linear", linear, "θ0 + α · mean_k(θ'_k − θ0)", "Speech-FT, arXiv 2502.12672", elementwise=True)
