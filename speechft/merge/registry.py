"""The merge methods: a pure function on tensors each, and what a card says of it. A new one is a file and a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from speechft.errors import UsageError
from speechft.merge.methods.linear import linear

MergeFunction = Callable[[Tensor, Sequence[Tensor], float], Tensor]
"""(base, tuned, alpha) -> merged; all tensors of one shape, result float32 or float64."""


@dataclass(frozen=True)
class Method:
    """A merge method: its function, formula and paper."""

    name: str
    function: MergeFunction
    formula: str
    paper: str


METHODS = {
    method.name: method
    for method in (Method("linear", linear, "θ0 + α · mean_k(θ'_k − θ0)", "Speech-FT, arXiv 2502.12672"),)
}


def method_named(name: str) -> Method:
    """A method.

    Raises:
        UsageError: unknown; the message lists the known ones.
    """
    if name not in METHODS:
        raise UsageError(f"unknown merge method {name!r}", f"known: {', '.join(METHODS)}")
    return METHODS[name]
