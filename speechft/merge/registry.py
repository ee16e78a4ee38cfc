"""The merge methods by name: a new one is a file in `methods/` and a line here."""

from __future__ import annotations

from typing import Any

from speechft.errors import UsageError
from speechft.merge.method import Method
from speechft.merge.methods import (
    average,
    breadcrumbs,
    dare_linear,
    dare_ties,
    della,
    fisher,
    linear,
    model_stock,
    regmean,
    slerp,
    task_arithmetic,
    ties,
)
from speechft.merge.own import own_method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        linear.METHOD,
        slerp.METHOD,
        task_arithmetic.METHOD,
        ties.METHOD,
        dare_linear.METHOD,
        dare_ties.METHOD,
        breadcrumbs.METHOD,
        della.METHOD,
        model_stock.METHOD,
        fisher.METHOD,
        regmean.METHOD,
        average.METHOD,
    )
}


def method_named(name: str) -> Method:
    """A method: one of these, or the user's own as `path/to/file.py:name` (`own.py`).

    Raises:
        UsageError: unknown; the message lists the known ones.
    """
    if ":" in name:
        method = own_method(name)
        if method.name in METHODS:
            raise UsageError(f"{name}: {method.name} is a method of speechft's already", "give yours another name")
        return method
    if name not in METHODS:
        known = f"known: {', '.join(METHODS)}, or your own: path/to/file.py:function"
        raise UsageError(f"unknown merge method {name!r}", known)
    return METHODS[name]


def versioned(name: str) -> str:
    """A name that changes when the method does: with a hash of its file where it is the user's own."""
    return f"{name}, {method_named(name).paper}" if ":" in name else name


def described() -> list[dict[str, Any]]:
    """Every method with its parameters, for a table or as JSON."""
    return [
        {
            "method": method.name, "formula": method.formula, "paper": method.paper, "alpha": method.alpha,
            "statistics": method.statistics,
            "parameters": [
                {"name": one.name, "type": one.kind, "range": one.range, "default": one.default, "meaning": one.meaning}
                for one in method.parameters
            ],
        }
        for method in METHODS.values()
    ]  # fmt: skip


def table() -> list[str]:
    """The methods for people: formula and paper, then a line for each parameter."""
    lines = []
    for method in METHODS.values():
        lines.append(f"{method.name}: {method.formula}")
        lines.append(f"    {method.paper}; alpha {method.alpha:g} unless given")
        if method.statistics:
            lines.append(f"    needs {method.statistics} statistics of every parent: --corpus or --statistics")
        for one in method.parameters:
            default = "" if one.default is None else f" (default {str(one.default).lower()})"
            lines.append(f"    {one.name}: {one.meaning}; {one.range}{default}")
    return lines
