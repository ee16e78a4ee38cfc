"""Memory that a CPU computes in, kept between one batch and the next."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_pages() -> bool:
    """Have the C library keep memory that is freed for whatever asks next, in this process, as torch does on a GPU.

    It would give large tensors back to the system, which then has to clear the pages anew: of a training step of HuBERT
    base 80 000, 4 % of its time, and more of a forward pass.

    Returns:
        Whether it could be told to (glibc, so Linux).
    """
    return _tell(1 << 30, (1 << 31) - 1)


def give_back_pages() -> bool:
    """Undo `keep_pages`: what is free goes back to the system, and the limits to what glibc comes to where large blocks
    come and go. Returns whether it could be told."""
    return _tell(32 << 20, 64 << 20) and bool(ctypes.CDLL(None).malloc_trim(0))


def _tell(mapped: int, trimmed: int) -> bool:
    try:
        tell = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(tell(_MMAP_THRESHOLD, mapped)) and bool(tell(_TRIM_THRESHOLD, trimmed))
