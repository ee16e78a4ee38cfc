"""RegMean: Ŵ = (Σ_i λ_i G_i)⁻¹ Σ_i λ_i G_i W_i over θ0 (λ_0 = 1 − α) and the θ'_k (λ_k = α/K), G = XᵀX.

Dataless knowledge fusion by merging weights of language models (2212.09849, section 3.2): the weight of a linear layer
whose outputs are nearest, in squared error, to those of every model on its own inputs X. As in the paper the elements
of G off the diagonal are scaled down, and what is no linear layer's weight is averaged. Equal G give `linear`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.merge.method import Method, Parameter
from speechft.merge.methods._tensors import at_an_end, no_extrapolation, task_vectors, weighted


def regmean(
    base: Tensor, tuned: Sequence[Tensor], alpha: float, *, statistics: Sequence[Tensor | None], scale: float = 0.9
) -> Tensor:
    """Merge one tensor.

    Args:
        base: θ0; for a linear layer `[out, in]`, else any shape.
        tuned: θ'_k, each of the same shape.
        alpha: weight of the fine-tuned side.
        statistics: G of θ0 and of every θ'_k, each `[in, in]`, a mean over frames; None where the tensor is no linear
            layer's weight: it is averaged.
        scale: factor of what is off the diagonal (α of the paper).

    Returns:
        The same shape, float32 (float64 if a parent is). Inputs that are always zero leave their column averaged.

    Raises:
        UsageError: α outside [0, 1], where weights would be negative.
    """
    no_extrapolation("regmean", alpha)
    end = at_an_end(base, tuned, alpha)
    if end is not None:
        return end
    origin, updates = task_vectors(base, tuned)
    if any(one is None for one in statistics):
        return origin + weighted(updates, None, normalize=True).mul_(alpha)
    grams = []
    for one in statistics:
        if one is not None:
            gram = one.double()
            grams.append(scale * gram + (1.0 - scale) * torch.diag(gram.diagonal()))
    silent = torch.stack([gram.diagonal() for gram in grams]).amax(0) <= 0
    for gram in grams:
        gram.diagonal()[silent] = 1.0
    total, update = (1.0 - alpha) * grams[0], torch.zeros_like(grams[0][:, :1])
    for gram, change in zip(grams[1:], updates, strict=True):
        share = alpha / len(updates)
        total = total + share * gram
        update = update + share * (gram @ change.double().T)
    # As an update of θ0, so that what does not change stays as it is; a singular sum gets the solution of least norm.
    factor, failed = torch.linalg.cholesky_ex(total)
    if int(failed):
        solved = torch.linalg.lstsq(total, update, driver="gelsd").solution
    else:
        solved = torch.cholesky_solve(update, factor)
    return origin + solved.T.to(origin.dtype)


METHOD = Method(
    "regmean", regmean, "(Σ_i λ_i G_i)⁻¹ Σ_i λ_i G_i W_i of linear layers, λ_0 = 1 − α, λ_k = α/K, G = XᵀX",
    "RegMean, arXiv 2212.09849",
    (Parameter("scale", "float", 0.9, "factor of what is off the diagonal of G"),), statistics="regmean",
)  # fmt: skip
