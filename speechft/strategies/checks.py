"""Values of the `strategy` group that cannot be meant."""

from __future__ import annotations

from speechft.errors import UsageError


def share(key: str, value: object, zero: bool = False, one: bool = False) -> None:
    """A number between 0 and 1, including 0 or 1 as told.

    Raises:
        UsageError: it is none.
    """
    if _number(value) and (0 < value < 1 or (zero and value == 0) or (one and value == 1)):  # type: ignore[operator]
        return
    low, high = "at least 0" if zero else "above 0", "at most 1" if one else "below 1"
    raise UsageError(f"strategy.{key} is {value!r}", f"it is a share: {low}, {high}")


def weight(key: str, value: object, zero: bool = True) -> None:
    """A finite number of at least 0, or above it.

    Raises:
        UsageError: it is none.
    """
    if _number(value) and 0 <= value < float("inf") and (zero or value):  # type: ignore[operator]
        return
    raise UsageError(f"strategy.{key} is {value!r}", f"give a number {'of at least' if zero else 'above'} 0")


def whole(key: str, value: object, least: int) -> None:
    """A whole number.

    Raises:
        UsageError: it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"strategy.{key} is {value!r}", f"give a whole number of at least {least}")


def switch(key: str, value: object) -> None:
    """True or false.

    Raises:
        UsageError: it is neither.
    """
    if not isinstance(value, bool):
        raise UsageError(f"strategy.{key} is {value!r}", "true or false")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
