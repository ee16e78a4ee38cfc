"""From the `strategy` group of a configuration to a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.errors import UsageError
from speechft.strategies.base import Strategy


def build_strategy(settings: Mapping[str, Any]) -> Strategy:
    """Build a strategy from its options.

    Raises:
        UsageError: an unknown option or a share out of range.
    """
    options = dict(settings)
    options["frozen_parts"] = tuple(options.get("frozen_parts") or ())
    try:
        return Strategy(**options)
    except TypeError as error:
        raise UsageError(f"strategy: {error}", "check the strategy section of the configuration") from error
