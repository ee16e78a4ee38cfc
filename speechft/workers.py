"""What a worker process is told before its work: one thread, and not to speak."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any


def start_worker() -> None:
    """Settings of a worker before anything heavy is imported. It ends with the process that it works for, however that
    ends: what it leaves is gone on with."""
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Only the parent speaks; what a failing job said comes with its error."""
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        yield
    finally:
        sys.stderr = before
