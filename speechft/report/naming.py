"""The name of a row that several models make up."""

from __future__ import annotations

from collections.abc import Sequence


def common(names: Sequence[str]) -> str:
    """`stable-0.25-0`, `stable-0.25-1` -> `stable-0.25`: what names share at their beginning and their end.

    Args:
        names: at least one; where they share next to nothing, the first is taken.
    """
    names = list(dict.fromkeys(names))
    start = _shared(names)
    end = _shared([name[start:][::-1] for name in names]) if len(names) > 1 else 0
    if len(names) == 1 or start + end < 3:
        return names[0]
    joined = f"{names[0][:start]}*{names[0][len(names[0]) - end :]}"
    return joined.removesuffix("*").rstrip("-_.")


def _shared(names: Sequence[str]) -> int:
    """How many letters all names begin with."""
    return next(
        (n for n, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )
