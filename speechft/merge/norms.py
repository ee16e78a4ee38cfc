"""How large an update is: ‖τ‖ and its share of ‖θ0‖, overall and per part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from speechft.checkpoints.parts import order_of

_BLOCK = 4096


class UpdateNorms:
    """Norms in the making: give it every tensor, or every piece of one.

    Args:
        parts: name -> part of the model (`checkpoints/parts.py`); what is not in it is a part of its own.
    """

    def __init__(self, parts: Mapping[str, str] | None = None) -> None:
        self._of = parts or {}
        self._parts: dict[str, list[float]] = {}

    def add(self, name: str, origin: float, update: Tensor) -> float:
        """The sum of θ0's squares and τ, or those of the same elements; τ in float32 or float64. Returns Σ τ²."""
        sums = self._parts.setdefault(self._of.get(name, name), [0.0, 0.0])
        square = square_sum(update)
        sums[0] += square
        sums[1] += origin
        return square

    @property
    def norm(self) -> float:
        return math.sqrt(sum(update for update, _ in self._parts.values()))

    def record(self) -> dict[str, Any]:
        """`norm`, `relative` to θ0's, and `parts`: each part's relative norm (absolute where θ0's is zero)."""
        origin = math.sqrt(sum(square for _, square in self._parts.values()))
        return {
            "norm": self.norm,
            "relative": self.norm / origin if origin else 0.0,
            "parts": {part: math.sqrt(a / b) if b else math.sqrt(a) for part, (a, b) in self._parts.items()},
        }


def square_sum(tensor: Tensor) -> float:
    """Σ x², summed in float64 over blocks that float32 can sum. It is finite where all x are."""
    flat = tensor.reshape(-1)
    if flat.dtype == torch.float64:
        return float(flat @ flat)
    whole = flat.numel() // _BLOCK * _BLOCK
    rows = flat[:whole].view(-1, _BLOCK)
    lengths = torch.linalg.vector_norm(rows, dim=1)
    found = float(lengths.double().square().sum()) + float(flat[whole:].double().square().sum())
    return found if math.isfinite(found) else float(flat.double().square().sum())  # float32 cannot square 1e20


def told(record: dict[str, Any]) -> list[str]:
    """The norms for people: the whole, then its parts in the order of the data flow, some to a line."""
    lines = [f"‖τ‖ = {record['norm']:.4g}, {100 * record['relative']:.2f} % of ‖θ0‖"]
    words = [
        f"{part} {100 * size:.2f} %"
        for part, size in sorted(record["parts"].items(), key=lambda item: order_of(item[0]))
    ]
    return lines + ["  " + ", ".join(words[start : start + 6]) for start in range(0, len(words), 6)]
