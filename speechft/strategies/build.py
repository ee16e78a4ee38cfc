"""From the `strategy` group of a configuration to a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.errors import UsageError
from speechft.strategies.adapters import Adapter
from speechft.strategies.base import Strategy
from speechft.strategies.feature_similarity import FeatureSimilarity


def build_strategy(settings: Mapping[str, Any]) -> Strategy:
    """Build a strategy from its options.

    Raises:
        UsageError: an unknown option or an impossible value.
    """
    options = dict(settings)
    try:
        for key in ("frozen_parts", "frozen_parameters"):
            options[key] = tuple(options.get(key) or ())
        options["adapter"] = Adapter(**_tuples(options.get("adapter"), "targets"))
        options["feature_similarity"] = FeatureSimilarity(**_tuples(options.get("feature_similarity"), "layers"))
        return Strategy(**options)
    except TypeError as error:
        raise UsageError(f"strategy: {error}", "check the strategy section of the configuration") from error


def _tuples(settings: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """A copy in which a list is a tuple, as a frozen dataclass wants it."""
    options = dict(settings or {})
    if isinstance(options.get(key), list):
        options[key] = tuple(options[key])
    return options
