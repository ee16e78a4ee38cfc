"""Making the shards of a feature set (`store.py`): by several devices of this process, beside other processes.

A shard is made by whoever holds its lock, and looked at once more before. So two jobs that need the same features share
the work, and what they leave is whole whoever is killed: the lock goes with the process, the files appear by renaming.
Where the file system knows no locks, both make the same shards and the later one replaces the former's.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.errors import SpeechFTError
from speechft.files import claimed, is_partial, sha256_file, whole_file, write_json

if TYPE_CHECKING:
    from speechft.superb.store import Key, Layout

_STALE_SECONDS = 6 * 3600
_WAIT_SECONDS = 0.2

Compute = Callable[[list[int]], list[np.ndarray]]
"""Item numbers -> an array `[rows, layers, dim]` for each, in the same order."""


class Making:
    """One set of features on its way to being complete.

    Args:
        folder: of the set.
        plan: item numbers of each shard.
        key, layout: what it is.
        progress: called with items done and items in all.
        say: told about damaged shards, and when another process is waited for.
    """

    def __init__(
        self, folder: Path, plan: Sequence[list[int]], key: Key, layout: Layout,
        progress: Callable[[int, int], None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.folder, self.plan, self.key, self.layout = folder, plan, key, layout
        self.progress, self.say = progress, say
        self.made: dict[int, dict[str, Any]] = {}
        self.pending = deque(range(len(plan)))
        self.elsewhere: set[int] = set()  # found locked since a shard was last completed
        self.waited = False
        self.stopped = False
        self.errors: list[BaseException] = []
        self.lock = threading.Lock()

    def run(self, computes: Sequence[Compute]) -> list[dict[str, Any]]:
        """Descriptions of all shards. The first compute is called in this thread, each other one in its own.

        Raises:
            SpeechFTError: the disk is full, the folder cannot be written; whatever a compute raises. Shards that were
                finished stay.
        """
        _remove_stale(self.folder)
        helpers = [threading.Thread(target=self._help, args=(compute,), daemon=True) for compute in computes[1:]]
        for helper in helpers:
            helper.start()
        try:
            self._work(computes[0])
            for helper in helpers:
                helper.join()
        finally:
            self.stopped = True  # after an error or Ctrl-C: the others end with their shard
            for helper in helpers:
                helper.join()
        if self.errors:
            raise self.errors[0]
        return [self.made[number] for number in range(len(self.plan))]

    def _help(self, compute: Compute) -> None:
        try:
            self._work(compute)
        except BaseException as error:
            self.errors.append(error)
            self.stopped = True

    def _work(self, compute: Compute) -> None:
        while not self.stopped:
            with self.lock:
                if not self.pending:
                    return
                number = self.pending.popleft()
            description = self._shard(number, compute)
            if description is None:
                self._wait(number)
                continue
            with self.lock:
                self.made[number] = description
                self.elsewhere.clear()
                self.progress(sum(len(self.plan[one]) for one in self.made), len(self.layout.rows))

    def _shard(self, number: int, compute: Compute) -> dict[str, Any] | None:
        """Its description, made where needed; None if another process is at it."""
        items = self.plan[number]
        description = _valid(self.folder, number, items, self.key, self.layout, self.say)
        if description is not None:
            return description
        with claimed(self.folder / f".lock-{number:05d}") as ours:
            if not ours:
                return None
            description = _valid(self.folder, number, items, self.key, self.layout, lambda text: None)
            if description is not None:  # made by another process just now
                return description
            if number == 0 or not (self.folder / "key.json").is_file():
                write_json(self.folder / "key.json", asdict(self.key))
            return _write(self.folder, number, items, self.key, self.layout, compute(items))

    def _wait(self, number: int) -> None:
        with self.lock:
            self.pending.append(number)
            nothing_else = number in self.elsewhere
            self.elsewhere.add(number)
            if nothing_else and not self.waited:
                self.waited = True
                self.say(f"another process is making the last shards of {self.folder}; waiting for it")
        if nothing_else:
            time.sleep(_WAIT_SECONDS)


@contextlib.contextmanager
def missing(
    folder: Path, number: int, items: list[int], key: Key, layout: Layout
) -> Iterator[Callable[[list[np.ndarray]], None] | None]:
    """Hold the lock of a shard that is not there, and get the function that writes it.

    Yields:
        None where it is there (whether it is sound shows when its set is opened), or where another process is at it.
    """
    note = folder / f"{number:05d}.json"
    if note.is_file():
        yield None
        return
    with claimed(folder / f".lock-{number:05d}") as ours:
        if not ours or note.is_file():
            yield None
            return

        def write(arrays: list[np.ndarray]) -> None:
            if not (folder / "key.json").is_file():
                write_json(folder / "key.json", asdict(key))
            _write(folder, number, items, key, layout, arrays)

        yield write


def _valid(
    folder: Path, number: int, items: list[int], key: Key, layout: Layout, say: Callable[[str], None]
) -> dict[str, Any] | None:
    path, note = folder / f"{number:05d}.bin", folder / f"{number:05d}.json"
    if not note.is_file():
        return None
    try:
        shard = json.loads(note.read_text(encoding="utf-8"))
        expected = (items, key.dtype, layout.layers, layout.dim)
        good = (
            (shard["items"], shard["dtype"], shard["layers"], shard["dim"]) == expected
            and path.stat().st_size == shard["bytes"] == sum(shard["rows"]) * layout.row_bytes(key)
            and len(shard["rows"]) == len(items)
            and sha256_file(path) == shard["sha256"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        say(f"stored features {path} are damaged; they are made again")
        return None
    return shard


def _write(
    folder: Path, number: int, items: list[int], key: Key, layout: Layout, arrays: list[np.ndarray]
) -> dict[str, Any]:
    path, note = folder / f"{number:05d}.bin", folder / f"{number:05d}.json"
    note.unlink(missing_ok=True)  # a damaged shard's description must not meet new bytes
    # Not flushed: the upstream need not wait for the disk. What a power failure takes, the checksum misses.
    with whole_file(path, flush=False) as temporary:
        # numpy's tofile() reports a full disk without its error number, so the bytes go through Python's own file
        with temporary.open("wb") as file:
            for item, array in zip(items, arrays, strict=True):
                block = np.ascontiguousarray(array, dtype=np.dtype(key.dtype).newbyteorder("<"))
                if block.shape[1:] != (layout.layers, layout.dim) or not np.isfinite(block).all():
                    raise SpeechFTError(
                        f"the upstream's features of item {item} are not finite or of shape {block.shape}",
                        "check the checkpoint" + (" or use frames_dtype=float32" if key.dtype == "float16" else ""),
                    )
                file.write(block.data)
        size, digest = temporary.stat().st_size, sha256_file(temporary)
    shard = {
        "items": items, "rows": [len(array) for array in arrays], "layers": layout.layers, "dim": layout.dim,
        "dtype": key.dtype, "bytes": size, "sha256": digest,
    }  # fmt: skip
    write_json(note, shard, flush=False)
    return shard


def _remove_stale(folder: Path) -> None:
    """Clear what a killed process left, sparing what another one may be writing right now."""
    if folder.is_dir():
        for path in folder.iterdir():
            if is_partial(path) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
