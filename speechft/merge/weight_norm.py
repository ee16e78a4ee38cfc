"""Weight norm: a weight stored as its length g and its direction v, w = g · v / ‖v‖ (1602.07868).

Merging g and v by themselves, as they are stored, is what the published code of Speech-FT does; merging w and storing
it again gives another model, the further the weights moved the more so.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_SPELLINGS = ((".parametrizations.weight.original0", ".parametrizations.weight.original1"), (".weight_g", ".weight_v"))


def pairs(names: Iterable[str]) -> dict[str, str]:
    """Name of g -> name of v, in torch's two spellings."""
    names = set(names)
    found = {}
    for length, direction in _SPELLINGS:
        for name in names:
            partner = name.removesuffix(length) + direction
            if name.endswith(length) and partner in names:
                found[name] = partner
    return found


def effective(length: Tensor, direction: Tensor) -> Tensor:
    """w, of the shape of v, from g, whose dimensions of size 1 are those that ‖v‖ is taken over; float32 at least."""
    kind = torch.promote_types(torch.float32, torch.promote_types(length.dtype, direction.dtype))
    return length.to(kind) * direction.to(kind) / _norm(direction.to(kind), length)


def stored(weight: Tensor, length: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """g and v of a weight, ‖v‖ that of another pair, such as θ0's: v's own length means nothing, and left as it was it
    adds nothing to the size of the update.

    Args:
        weight: w.
        length, direction: the other pair, of the same shapes.
    """
    norm, direction = _norm(weight, length), direction.to(weight.dtype)
    return norm, torch.where(norm > 0, weight * (_norm(direction, length) / norm), direction)


def _norm(weight: Tensor, like: Tensor) -> Tensor:
    over = [index for index, size in enumerate(like.shape) if size == 1]
    return torch.linalg.vector_norm(weight, dim=over, keepdim=True) if over else weight.abs()
