"""Checks that the comparisons' options share."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from speechft.errors import UsageError


def check_counts(arguments: Namespace, names: Sequence[str]) -> None:
    """Whole numbers that are given must be at least 1.

    Raises:
        UsageError: one that is not.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}", "give a whole number of at least 1")
