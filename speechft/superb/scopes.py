"""What is otherwise inside a `with` and as it was after it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def swapped(holder: Any, name: str, value: Any) -> Iterator[None]:
    """`holder.name` is `value` inside."""
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextlib.contextmanager
def python_seed(seed: str) -> Iterator[None]:
    """Python's `random`, from which s3prl draws its crops, seeded inside and as it was outside."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
