"""What a worker process is told before its work: one thread, and not to speak."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator


def start_worker() -> None:
    """Settings of a worker before anything heavy is imported."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Only the parent speaks; what a failing job said comes with its error."""
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        yield
    finally:
        sys.stderr = before
