"""Features on disk: what an upstream computes from a data set, made once, checked whenever it is opened.

    STORE/pooled/DIGEST/key.json         what it is, readable
    STORE/pooled/DIGEST/00000.bin        a shard: [rows, layers, dim], raw, little-endian
    STORE/pooled/DIGEST/00000.json       its items, rows per item, dtype, bytes and sha256

A shard counts only with its json, which is written after it; both appear whole or not at all. So an interrupted
extraction goes on at the next shard, and a shard whose bytes do not match its checksum is made again.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft.errors import SpeechFTError
from speechft.files import sha256_json
from speechft.superb.shards import Compute, Making

VERSION = 3
"""Of the code that turns files and weights into features (upstreams/, extract.py, the tasks' reading). Raise it by hand
with every change after which the same weights and files give other features: stored ones and finished results are then
made again."""

POOLED_ITEMS_PER_SHARD = 256
FRAMES_BYTES_PER_SHARD = 256 << 20

Room = Callable[[tuple[int, ...], np.dtype], np.ndarray]
"""Shape and dtype -> an array to be filled."""


@dataclass(frozen=True)
class Key:
    """What features depend on.

    Attributes:
        upstream: `Identity.key`: family, input normalisation, hash of the weights; and `Numerics.key`.
        data: hash of the items: names, sizes, times, crops, draws.
        kind: `pooled` (one row per item: the mean over its frames) or `frames` (a row per frame).
        dtype: `float32` or `float16`.
        version: of the code.
    """

    upstream: str
    data: str
    kind: str
    dtype: str
    version: int = VERSION

    @property
    def digest(self) -> str:
        return sha256_json(asdict(self))[:32]


@dataclass(frozen=True)
class Layout:
    """Shape of what is stored: rows expected per item, then `layers` and `dim` of each row.

    Attributes:
        rows: expected rows of each item; they plan shards and size, the real ones are stored with the shard.
    """

    rows: Sequence[int]
    layers: int
    dim: int

    def row_bytes(self, key: Key) -> int:
        return self.layers * self.dim * np.dtype(key.dtype).itemsize

    def total_bytes(self, key: Key) -> int:
        return sum(self.rows) * self.row_bytes(key)

    def shards(self, key: Key) -> list[list[int]]:
        """Item numbers of each shard, the longest items first, so that batches hold items of similar length."""
        order = sorted(range(len(self.rows)), key=lambda number: (-self.rows[number], number))
        shards: list[list[int]] = []
        size = 0
        for number in order:
            full = len(shards[-1]) >= POOLED_ITEMS_PER_SHARD if shards and key.kind == "pooled" else False
            if not shards or full or size + self.rows[number] * self.row_bytes(key) > FRAMES_BYTES_PER_SHARD:
                shards.append([])
                size = 0
            shards[-1].append(number)
            size += self.rows[number] * self.row_bytes(key)
        return shards


class Features:
    """A complete set, memory-mapped: item number -> array `[rows, layers, dim]`."""

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        self.place: dict[int, tuple[int, int, int]] = {}
        self.maps: list[np.ndarray] = []
        for number, shard in enumerate(shards):
            shape = (sum(shard["rows"]), shard["layers"], shard["dim"])
            self.maps.append(np.memmap(folder / f"{number:05d}.bin", dtype=shard["dtype"], mode="r", shape=shape))
            start = 0
            for item, rows in zip(shard["items"], shard["rows"], strict=True):
                self.place[item] = (number, start, start + rows)
                start += rows

    def __len__(self) -> int:
        return len(self.place)

    @property
    def nbytes(self) -> int:
        rows = sum(end - start for _, start, end in self.place.values())
        return rows * self.maps[0][0].nbytes if rows else 0

    def part(self, items: Sequence[int]) -> Features:
        """Some of the items as a set of its own, in this order, on the same files."""
        chosen = copy.copy(self)
        chosen.place = {number: self.place[item] for number, item in enumerate(items)}
        return chosen

    def rows(self, item: int) -> np.ndarray:
        """`[rows, layers, dim]` of one item, a view of the file."""
        shard, start, end = self.place[item]
        return self.maps[shard][start:end]

    def gather(self, items: Sequence[int], room: Room | None = None) -> tuple[np.ndarray, list[int]]:
        """Rows of several items one after the other, `[sum of rows, layers, dim]`, and rows per item.

        Args:
            room: gives the array to be filled (shape, dtype); None for a new one.
        """
        parts = [self.rows(item) for item in items]
        counts = [len(part) for part in parts]
        if room is None:
            return np.concatenate(parts), counts
        return np.concatenate(parts, out=room((sum(counts), *parts[0].shape[1:]), parts[0].dtype)), counts


class FeatureStore:
    """The folder of all feature sets.

    Args:
        root: where; made when needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: Key) -> Path:
        return self.root / key.kind / key.digest

    def missing_bytes(self, key: Key, layout: Layout) -> int:
        """What is still to be written, by the presence of shards."""
        return sum(layout.rows[item] for item in self.missing_items(key, layout)) * layout.row_bytes(key)

    def missing_items(self, key: Key, layout: Layout) -> list[int]:
        """The items of the shards that are not there."""
        return [item for shard in self._absent(key, layout) for item in shard]

    def missing_shards(self, key: Key, layout: Layout) -> int:
        """How many shards are not there."""
        return len(self._absent(key, layout))

    def _absent(self, key: Key, layout: Layout) -> list[list[int]]:
        folder = self.folder(key)
        return [shard for n, shard in enumerate(layout.shards(key)) if not (folder / f"{n:05d}.json").is_file()]

    def open(
        self,
        key: Key,
        layout: Layout,
        compute: Compute,
        progress: Callable[[int, int], None] = lambda done, total: None,
        say: Callable[[str], None] = lambda text: None,
        others: Sequence[Compute] = (),
    ) -> Features:
        """The features of a key, made or completed first where needed.

        Processes that ask for the same set at once share the work (`shards.py`).

        Args:
            compute: called for the items of each shard that is missing or damaged.
            others: further ones that compute the same, each then called in a thread of its own.
            progress: called with items done and items in all.
            say: told about damaged shards, and when another process is waited for.

        Raises:
            SpeechFTError: the disk is full, the folder cannot be written; whatever `compute` raises.
        """
        folder = self.folder(key)
        plan = layout.shards(key)
        shards = Making(folder, plan, key, layout, progress, say).run([compute, *others])
        return Features(folder, shards)


def room(root: Path, budget_gb: float) -> tuple[float, float]:
    """Bytes that one evaluation may keep (`budget_gb` is in GB, 1e9 bytes), and bytes the disk has left."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return budget_gb * 1e9, float(shutil.disk_usage(existing).free)


def check_budget(root: Path, total: int, missing: int, budget_gb: float, what: str) -> None:
    """Stop before an extraction that would not fit.

    Args:
        root: the store.
        total, missing: bytes of the whole and of what is not there yet.
        budget_gb: the most that one evaluation may keep, in GB (1e9 bytes).

    Raises:
        SpeechFTError: over the budget, or over what the disk has left.
    """
    need = f"the features for {what} take {total / 1e9:.2f} GB in {root}"
    budget, free = room(root, budget_gb)
    if total > budget:
        raise SpeechFTError(
            f"{need}, more than budget_gb={budget_gb:g}",
            f"they have to be stored: set budget_gb={max(1, round(total / 1e9 + 0.5))}",
        )
    if missing > free:
        raise SpeechFTError(
            f"{need}, {missing / 1e9:.2f} GB of it still to be written, but the disk has {free / 1e9:.2f} GB left",
            "free some space, or move the store with store=DIR",
        )
