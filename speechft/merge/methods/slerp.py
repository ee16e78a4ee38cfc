"""Spherical interpolation: θ̂ = (sin((1−α)Ω) · θ0 + sin(αΩ) · θ') / sin Ω, Ω the angle between θ0 and θ'.

Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985, section 3.3, tensor by tensor, each as one long
vector. A little fine-tuning turns a tensor by a few degrees at most: a cosine does not show such an angle in float32,
so it is taken from the lengths of difference and sum of the two directions (Kahan, 2 · atan2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.merge.method import Method
from speechft.merge.methods._tensors import at_an_end, computing_type


def slerp(base: Tensor, tuned: Sequence[Tensor], alpha: float) -> Tensor:
    """Interpolate one tensor along the arc.

    Args:
        base: θ0, any shape.
        tuned: exactly one θ' of the same shape.
        alpha: how far along the arc; 0 gives θ0 and 1 gives θ', both bit for bit.

    Returns:
        The same shape, float32 (float64 if a parent is). Where there is no arc (a tensor of zeros, parallel or opposite
        tensors) it is linear interpolation.
    """
    end = at_an_end(base, tuned, alpha)
    if end is not None:
        return end
    kind = computing_type(base, tuned)
    origin, other = base.to(kind), tuned[0].to(kind)
    lengths = [_length(origin), _length(other)]
    if min(lengths) == 0.0 or torch.equal(origin, other):
        return origin + alpha * (other - origin)
    apart = _length(origin / lengths[0] - other / lengths[1])
    together = _length(origin / lengths[0] + other / lengths[1])
    angle = 2.0 * math.atan2(apart, together)
    if math.sin(angle) < 1e-7:
        return origin + alpha * (other - origin)
    first, second = (math.sin(share * angle) / math.sin(angle) for share in (1.0 - alpha, alpha))
    # The weights sum to a little more than 1; written as an update, what both have in common is not rounded twice.
    return origin + second * (other - origin) + (first + second - 1.0) * origin


def _length(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))


METHOD = Method(
    "slerp", slerp, "(sin((1−α)Ω) · θ0 + sin(αΩ) · θ') / sin Ω, Ω = ∠(θ0, θ'), per tensor",
    "Shoemake, SIGGRAPH 1985", most=1,
)  # fmt: skip
