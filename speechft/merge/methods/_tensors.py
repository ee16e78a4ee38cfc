"""What the methods share: the type they compute in, task vectors, and how an update is applied."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.errors import UsageError


def computing_type(base: Tensor, tuned: Sequence[Tensor]) -> torch.dtype:
    """float32, or float64 where a parent is."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in (base, *tuned)) else torch.float32


def task_vectors(base: Tensor, tuned: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """θ0 and the task vectors τ_k = θ'_k − θ0, all in the computing type (2212.04089, section 2)."""
    kind = computing_type(base, tuned)
    origin = base.to(kind)
    return origin, [tensor.to(kind) - origin for tensor in tuned]


def at_an_end(base: Tensor, tuned: Sequence[Tensor], alpha: float) -> Tensor | None:
    """θ0 at α = 0 and, where one model was fine-tuned, θ' at α = 1, both bit for bit; None between."""
    if alpha == 0.0:
        return base.to(computing_type(base, tuned))
    return tuned[0].to(computing_type(base, tuned)) if alpha == 1.0 and len(tuned) == 1 else None


def weighted(updates: Sequence[Tensor], weights: Sequence[float] | None, normalize: bool = False) -> Tensor:
    """Σ_k w_k · update_k, divided by Σ_k w_k where `normalize`; all w_k are 1 unless given.

    Weights whose sum is 0 give no mean; then the sum stays as it is.
    """
    factors = [1.0] * len(updates) if weights is None else list(weights)
    total = torch.zeros_like(updates[0])
    for factor, update in zip(factors, updates, strict=True):
        total.add_(update, alpha=factor)
    whole = math.fsum(factors)
    return total / whole if normalize and whole else total


def generator_for(seed: int, tensor: Tensor) -> torch.Generator:
    """A generator fixed by a seed and a tensor's own values, so that it does not matter in which order they come."""
    digest = hashlib.sha256(f"{seed}|".encode())
    if tensor.numel():
        digest.update(tensor.detach().float().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.Generator().manual_seed(int.from_bytes(digest.digest()[:8], "little") >> 1)


def tensor_seed(seed: int, name: str) -> int:
    """A seed of a tensor's own, from the user's and its name."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:8], "little")


def drop(update: Tensor, keep: Tensor | float, seed: int) -> Tensor:
    """Keep each element with its probability and divide it by that, so that the expectation stays.

    Args:
        update: τ, any shape.
        keep: probabilities of the same shape, or one for all, above 0.
        seed: with the values of `update`, it fixes what is drawn.
    """
    drawn = torch.rand(update.shape, generator=generator_for(seed, update), dtype=torch.float32)
    return torch.where(drawn < keep, update / keep, torch.zeros_like(update))


def elected(updates: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """TIES' elect and disjoint merge (2306.01708, section 3.2): the mean of those updates that agree with the sign of
    the sum, element by element; zeros take no part.

    With weights it is the sign of the weighted sum, and the weighted mean; a negative weight turns its update round.
    """
    factors = [1.0] * len(updates) if weights is None else list(weights)
    sign = torch.zeros_like(updates[0])
    for factor, update in zip(factors, updates, strict=True):
        sign.add_(update, alpha=factor)
    sign.sign_()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for factor, update in zip(factors, updates, strict=True):
        agrees = (factor * update).sign() == sign
        agrees &= update != 0
        total += torch.where(agrees, factor * update, torch.zeros_like(update))
        count += agrees * abs(factor)
    return torch.where(count != 0, total / count, torch.zeros_like(total))


def largest(update: Tensor, density: float) -> Tensor:
    """The share `density` of elements with the largest magnitudes, at least one; the others become 0.

    Of equal magnitudes at the border those stay that come first.
    """
    count = max(1, round(density * update.numel()))
    if count >= update.numel():
        return update
    chosen = torch.topk(update.abs().reshape(-1), count, sorted=False).indices
    flat = update.reshape(-1)
    return torch.zeros_like(flat).scatter_(0, chosen, flat[chosen]).reshape(update.shape)


def no_extrapolation(method: str, alpha: float) -> None:
    """For methods that weigh models: outside [0, 1] a weight would be negative.

    Raises:
        UsageError: α is outside.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha {alpha:g} is outside [0, 1]", f"{method} weighs models and cannot extrapolate")
