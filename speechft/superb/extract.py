"""From a data set's items to stored features: s3prl's own reading, our upstream, batches by seconds of audio."""

from __future__ import annotations

import contextlib
import copy
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechft.data.audio import SAMPLE_RATE
from speechft.errors import DiskFullError, SpeechFTError
from speechft.files import sha256_json
from speechft.superb.items import Item, Split
from speechft.superb.shards import Compute, missing
from speechft.superb.store import Features, FeatureStore, Key, Layout, Room
from speechft.superb.tasks.base import Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.numerics import FLOAT32, Numerics
from speechft.upstreams.pages import keep_pages
from speechft.upstreams.together import Together

_reading = threading.Lock()


def data_identity(task: Task, split: Split, settings: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Hash of what a split's features depend on besides the upstream.

    Files count by name (relative to the corpus), size in bytes and time of change; to this come s3prl's way of reading
    and the number of random draws. Draws are seeded by name and number, so the run's seed does not enter.
    """
    root = task.root(data, split.name)
    files = []
    for item in split.items:
        if item.draw == 0:
            stat = item.path.stat()
            draws = split.draws(item.index) if item.random else 0
            files.append([_relative(item.path, root), stat.st_size, stat.st_mtime_ns, item.samples, draws])
    return sha256_json({"reading": task.reading(settings), "files": files})


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def plan(
    task: Task, split: Split, upstream: Upstream, data_hash: str, frames_dtype: str, numerics: Numerics = FLOAT32
) -> tuple[Key, Layout]:
    """Under which key a split is stored, and how large it will be."""
    pooled = task.kind == "pooled"
    key = Key(upstream.identity.key + numerics.key, data_hash, task.kind, "float32" if pooled else frames_dtype)
    samples = torch.tensor([item.samples for item in split.items], dtype=torch.int64)
    rows = [1] * len(split.items) if pooled else upstream.frame_counts(samples).tolist()
    return key, Layout(rows, upstream.num_layers, upstream.dim)


def batches_by_seconds(lengths: Sequence[int], seconds: float) -> list[list[int]]:
    """Group waveforms so that a padded batch holds at most so many seconds (a longer one is alone).

    Args:
        lengths: samples at 16 kHz.

    Returns:
        Positions, from the longest waveform to the shortest.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    batches: list[list[int]] = []
    for position in order:
        limit = seconds * SAMPLE_RATE
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= limit:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def encode(
    upstream: Upstream, waves: Sequence[np.ndarray], kind: str, device: torch.device, batch_seconds: float,
    numerics: Numerics = FLOAT32,
) -> list[np.ndarray]:  # fmt: skip
    """Hidden states of waveforms, valid frames only.

    Args:
        waves: `[samples]` float32, 16 kHz.
        kind: `pooled` gives `[1, layers, dim]` (mean over time), `frames` `[frames, layers, dim]`; float32.
        batch_seconds: seconds of padded audio in one batch.
        numerics: precision of the upstream; means are taken in float32.
    """
    return encode_together(Together([upstream]), [0], waves, kind, device, batch_seconds, numerics)[0]


def encode_together(
    together: Together, chosen: Sequence[int], waves: Sequence[np.ndarray], kind: str, device: torch.device,
    batch_seconds: float, numerics: Numerics = FLOAT32,
) -> list[list[np.ndarray]]:  # fmt: skip
    """`encode` of several upstreams (`chosen`, by number), a list for each: the bits that each gives alone."""
    results: list[list[np.ndarray]] = [[np.empty(0)] * len(waves) for _ in chosen]
    # One autocast around all batches rounds the weights once; in inference mode it would do so for each batch.
    with torch.no_grad(), numerics.autocast(device):
        for batch in batches_by_seconds([len(wave) for wave in waves], batch_seconds):
            heard = together([torch.from_numpy(waves[position]).to(device) for position in batch], chosen)
            for own, hidden in zip(results, heard, strict=True):
                for row, (position, frames) in enumerate(zip(batch, hidden.frames.tolist(), strict=True)):
                    states = [state[row, :frames] for state in hidden.states]
                    if kind == "pooled":
                        states = [state.mean(dim=0, keepdim=True) for state in states]
                    own[position] = torch.stack(states, dim=1).cpu().numpy()
    return results


Hear = Callable[[list[int], Sequence[int]], list[list[np.ndarray]]]
"""Item numbers and numbers of upstreams -> for each upstream an array `[rows, layers, dim]` for each item."""


def hearer(
    task: Task, expert: Any, split: Split, upstreams: Sequence[Upstream], kind: str, device: torch.device,
    batch_seconds: float, numerics: Numerics = FLOAT32, fresh: bool = False,
) -> Hear:  # fmt: skip
    """A function from item numbers to their features (float32), read once and encoded now, by some of the upstreams.

    It may be called from any thread: s3prl's data sets draw from Python's one generator, so they read one at a time.

    Args:
        fresh: whether what is read at random is drawn anew each time, from Python's generator, as in s3prl's loop.
    """
    together = Together([upstream.to(device).eval() for upstream in upstreams])
    if device.type == "cpu":
        keep_pages()
    threads = torch.get_num_threads()
    size = max(1, round(8 * batch_seconds * SAMPLE_RATE))  # waveforms held in memory at a time, in samples

    def hear(numbers: list[int], chosen: Sequence[int]) -> list[list[np.ndarray]]:
        if threading.current_thread() is not threading.main_thread():
            torch.set_num_threads(threads)  # every thread has its own, and it changes the last bits on a CPU
        arrays: list[list[np.ndarray]] = [[] for _ in chosen]
        waves: list[np.ndarray] = []
        for place, number in enumerate(numbers, 1):
            item = split.items[number]
            if fresh and item.random:
                item = replace(item, draw=random.getrandbits(32))
            with _reading:
                waves.append(_read(task, expert, split.name, item))
            if sum(len(wave) for wave in waves) >= size or place == len(numbers):
                new = encode_together(together, chosen, waves, kind, device, batch_seconds, numerics)
                for own, more in zip(arrays, new, strict=True):
                    own += more
                waves = []
        return arrays

    return hear


def computer(
    task: Task, expert: Any, split: Split, upstream: Upstream, kind: str, device: torch.device, batch_seconds: float,
    numerics: Numerics = FLOAT32, fresh: bool = False,
) -> Compute:  # fmt: skip
    """`hearer` of one upstream: item numbers to their features."""
    hear = hearer(task, expert, split, [upstream], kind, device, batch_seconds, numerics, fresh)
    return lambda numbers: hear(numbers, [0])[0]


def extract(
    task: Task,
    expert: Any,
    split: Split,
    upstream: Upstream,
    store: FeatureStore,
    key: Key,
    layout: Layout,
    device: torch.device,
    batch_seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    numerics: Numerics = FLOAT32,
    devices: Sequence[torch.device] = (),
    beside: Mapping[Key, Upstream] | None = None,
) -> Features:
    """Features of a split, from the store or computed into it.

    Args:
        devices: with more than one, shards are computed on all of them, by a copy of the upstream on each. A shard has
            the same bits whatever device of a kind made it: its batches are its own.
        beside: other upstreams with the same layout, and their keys: what is computed anyway is computed for them, too,
            as far as it is not there, and left in the store.

    Raises:
        SpeechFTError: an unreadable file, a full disk, features that are not finite.
    """
    others = dict(beside or {})
    count = min(len(devices), store.missing_shards(key, layout))
    places = list(devices[:count]) if count > 1 else [device]
    # copied before any of them runs: running hangs temporary hooks into an upstream
    copies = [[upstream, *others.values()], *([*map(copy.deepcopy, (upstream, *others.values()))] for _ in places[1:])]
    with contextlib.ExitStack() as stack:
        for one in (one for group in copies for one in group):
            stack.enter_context(numerics.compiled(one))
        first, *more = (
            _sharing(store, key, layout, list(others), hearer(
                task, expert, split, group, key.kind, place, batch_seconds, numerics
            ))
            for group, place in zip(copies, places, strict=True)
        )  # fmt: skip
        return store.open(key, layout, first, progress, say, more)


def _sharing(store: FeatureStore, key: Key, layout: Layout, others: Sequence[Key], hear: Hear) -> Compute:
    """What `store.open` calls: the shard asked for, of the first upstream; those of the others go to the store."""
    shards = {items[0]: (number, items) for number, items in enumerate(layout.shards(key)) if items}
    given_up: set[Key] = set()

    def compute(numbers: list[int]) -> list[np.ndarray]:
        number, items = shards[numbers[0]]
        with contextlib.ExitStack() as stack:
            wanted = []
            for place, one in enumerate(others, 1):
                write = stack.enter_context(missing(store.folder(one), number, items, one, layout))
                if write is not None and one not in given_up:
                    wanted.append((place, one, write))
            own, *more = hear(numbers, [0, *(place for place, _, _ in wanted)])
            for (_, one, write), arrays in zip(wanted, more, strict=True):
                try:
                    write(arrays)
                except DiskFullError:
                    raise
                except SpeechFTError:  # not finite: its own evaluation will say so
                    given_up.add(one)
        return own

    return compute


class Streamed:
    """Features that do not fit on the disk: computed whenever a batch asks for them, once for all heads.

    Crops are then drawn anew each time, as s3prl does: it costs nothing.

    Args:
        compute: see `computer`.
        key, layout: as they would be stored; values are rounded as they would be there.
    """

    def __init__(self, compute: Compute, key: Key, layout: Layout) -> None:
        self.compute, self.key, self.layout = compute, key, layout

    def __len__(self) -> int:
        return len(self.layout.rows)

    @property
    def nbytes(self) -> int:
        """What they would take, in bytes."""
        return self.layout.total_bytes(self.key)

    def gather(self, items: Sequence[int], room: Room | None = None) -> tuple[np.ndarray, list[int]]:
        """As `Features.gather`; what is computed is new anyway."""
        del room
        parts = [part.astype(self.key.dtype) for part in self.compute(list(items))]
        return np.concatenate(parts), [len(part) for part in parts]


def _read(task: Task, expert: Any, split: str, item: Item) -> np.ndarray:
    try:
        wave = task.read(expert, split, item)
    except SpeechFTError:
        raise
    except (RuntimeError, OSError, ValueError) as error:  # what soundfile raises, through s3prl's data sets
        raise SpeechFTError(f"audio file {item.path} cannot be read ({error})", "replace it") from error
    if wave.size == 0 or not np.isfinite(wave).all():
        raise SpeechFTError(f"{item.path} is empty or holds samples that are not finite", "replace it")
    return wave
