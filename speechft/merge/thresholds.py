"""The magnitude from which on the largest share of a whole task vector lies, exactly, without holding the vector.

Magnitudes in float32 are in the order of their bits read as whole numbers. One pass counts the upper half of the bits
of every |τ|, which says in which of 32 768 bins the threshold lies; a second one counts the lower half in that bin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import TensorInfo
from speechft.merge.methods._tensors import task_vectors

PIECE = 1 << 18
"""Elements that are worked on at once."""
_HALF = 16
_BINS = 1 << _HALF


def thresholds(
    base: FolderReader, tuned: Sequence[FolderReader], infos: Mapping[str, TensorInfo], density: float
) -> list[float]:
    """For each fine-tuned model, the smallest |τ|, in float32, of the share `density` of its elements with the largest.

    Args:
        base, tuned: the parents.
        infos: of all tensors; those that are no numbers with a fraction have no part in a task vector.
        density: above 0; a number of elements is rounded to, at least one.

    Returns:
        A magnitude a model; at it lie the last of those that stay, and all others equal to it.
    """
    names = [name for name, info in infos.items() if info.dtype.is_floating_point]
    wanted = max(1, round(density * sum(infos[name].size for name in names)))
    upper = [np.zeros(_BINS, dtype=np.int64) for _ in tuned]
    lower = [np.zeros(_BINS, dtype=np.int64) for _ in tuned]
    for name in names:
        for model, bits in _magnitudes(base, tuned, name, infos[name]):
            upper[model] += np.bincount(bits >> _HALF, minlength=_BINS)
    found = [_from_the_top(counts, wanted) for counts in upper]
    for name in names:
        for model, bits in _magnitudes(base, tuned, name, infos[name]):
            inside = bits[bits >> _HALF == found[model][0]]
            lower[model] += np.bincount(inside & (_BINS - 1), minlength=_BINS)
    ends = []
    for (bin_, rest), counts in zip(found, lower, strict=True):
        place, _ = _from_the_top(counts, rest)
        ends.append(float(np.array([bin_ << _HALF | place], dtype=np.int32).view(np.float32)[0]))
    return ends


def _magnitudes(
    base: FolderReader, tuned: Sequence[FolderReader], name: str, info: TensorInfo
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the model, bits of |τ| as `[elements]` int32), piece by piece."""
    for start in range(0, info.size, PIECE):
        stop = min(start + PIECE, info.size)
        origin, *others = (reader.read(name, start, stop) for reader in (base, *tuned))
        for model, update in enumerate(task_vectors(origin, others)[1]):
            yield model, _bits(update)


def _bits(update: Tensor) -> np.ndarray:
    return update.abs().to(torch.float32).numpy().view(np.int32)


def _from_the_top(counts: np.ndarray, wanted: int) -> tuple[int, int]:
    """The bin that holds the element which is `wanted`-th from the top, and which one of that bin it is."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, wanted))
    return len(counts) - 1 - place, wanted - (int(above[place - 1]) if place else 0)
