"""Batches of stored features: drawn and collated by s3prl's own loader, looked up in the store, summed over layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechft.errors import SpeechFTError
from speechft.superb.extract import Streamed
from speechft.superb.items import Split
from speechft.superb.store import Features
from speechft.superb.tasks.base import Task
from speechft.superb.tasks.losses import sent

_RESIDENT_BYTES = 2 << 30  # pooled features up to this size are kept in memory (of a GPU: up to half of what is free)
_FILL_ITEMS = 4096


class Positions(Dataset):  # type: ignore[type-arg]
    """Elements are their own positions: shows what a sampler draws."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class _WeightedSum(torch.autograd.Function):
    """`weights [layers]`, `features [rows, layers, dim]` -> `[rows, dim]`; only the weights get a gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.matmul(weights, features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        # as a batch of row vectors times matrices, which reads the features once and where they lie: einsum copies
        # them first, and as column vectors it took 3 times (many rows) to 10 times (32) as long
        return torch.bmm(grads[0].unsqueeze(1), features.transpose(1, 2)).sum(dim=0).squeeze(0), None


class _Buffer:
    """Memory that is used again and again: a new piece of this size costs as much as copying into it.

    Args:
        pinned: whether it is pinned, for copies to a GPU.
    """

    def __init__(self, pinned: bool) -> None:
        self.pinned = pinned
        self.memory = torch.empty(0)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        size = math.prod(shape)
        if self.memory.dtype != kind or self.memory.numel() < size:
            self.memory = torch.empty(size, dtype=kind, pin_memory=self.pinned)
        array: np.ndarray = self.memory[:size].view(shape).numpy()
        return array


def resident_bytes(device: torch.device) -> int:
    """How large a set of pooled features may be to be kept on the device; VoxCeleb1's take about 7 GB at base size."""
    if device.type != "cuda":
        return _RESIDENT_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) // 2


def _table(features: Features | Streamed, device: torch.device) -> Tensor:
    """All rows on the device, `[items, layers, dim]`; on the host there are only so many at a time."""
    table = torch.empty(0)
    for begin in range(0, len(features), _FILL_ITEMS):
        rows, _ = features.gather(range(begin, min(begin + _FILL_ITEMS, len(features))))
        if begin == 0:
            table = torch.empty((len(features), *rows.shape[1:]), dtype=torch.float32, device=device)
        table[begin : begin + len(rows)] = torch.from_numpy(rows)
    return table


class FeatureSplit:
    """A split as the expert sees it: batches of `(features, others)` instead of `(waveforms, others)`.

    Args:
        task, expert, split: where batches come from.
        features: of the split's items, stored or computed when asked for.
        device: where the expert is.
    """

    def __init__(
        self, task: Task, expert: Any, split: Split, features: Features | Streamed, device: torch.device
    ) -> None:
        self.split = split
        self.device = device
        self.pooled = task.kind == "pooled"
        self.features = features
        self.loader = task.loader(expert, split.name)
        if len(self.loader) == 0:
            raise SpeechFTError(
                f"the {split.name} set of {task.name} has {len(split.items)} items, fewer than one batch",
                f"lower superb.{task.name}.batch_size",
            )
        self.batch = task.batches(expert, split, self.loader)
        self.table: Tensor | None = None
        self.stored, self.floats = _Buffer(device.type == "cuda"), _Buffer(False)
        if self.pooled and features.nbytes <= resident_bytes(device):
            self.table = _table(features, device)

    def __len__(self) -> int:
        return len(self.loader)

    def draw(self) -> Iterator[list[int]]:
        """One epoch of index batches; takes from the random generators what iterating the expert's loader takes."""
        positions = Positions(len(self.loader.dataset))
        return iter(DataLoader(positions, batch_sampler=self.loader.batch_sampler, collate_fn=list, num_workers=0))

    def look_up(self, indices: Sequence[int]) -> tuple[Tensor, list[int], list[Any]]:
        """Stored rows `[rows, layers, dim]` float32 on the device, rows per utterance, and the batch's other parts.

        The rows are good until the next look-up.
        """
        numbers, others = self.batch(indices)
        if self.table is not None:
            return self.table.index_select(0, sent(numbers, self.device)), [1] * len(numbers), others
        array, counts = self.features.gather(numbers, self.stored)
        rows = torch.from_numpy(array).to(self.device)
        if rows.dtype != torch.float32 and self.device.type == "cpu":
            rows = torch.from_numpy(self.floats(array.shape, np.dtype(np.float32))).copy_(rows)
        return rows.float(), counts, others


def weigh(featurizer: Any, rows: Tensor) -> Tensor:
    """Softmax-weighted sum over layers (s3prl's `Featurizer._weighted_sum`).

    Args:
        rows: `[rows, layers, dim]`.

    Returns:
        `[rows, dim]`.
    """
    if not hasattr(featurizer, "weights"):
        return rows[:, 0]
    summed = _WeightedSum.apply(featurizer.weights.softmax(dim=-1), rows)
    assert isinstance(summed, Tensor)
    return summed
