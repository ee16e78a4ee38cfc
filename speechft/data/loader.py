"""From cuts to batches: lhotse's bucketing sampler draws them in an order fixed by the seed, a dataset reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechft.data.audio import use_soundfile
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet


@dataclass
class Batch:
    """Utterances read together.

    Attributes:
        waves: 1-D float32 waveforms at 16 kHz, one per cut.
        cuts: the lhotse cuts they came from, with their labels.
    """

    waves: list[Tensor]
    cuts: list[Any]

    @property
    def seconds(self) -> float:
        """Seconds of audio, without padding."""
        return sum(wave.numel() for wave in self.waves) / 16_000

    def to(self, device: torch.device | str) -> Batch:
        return Batch([wave.to(device, non_blocking=True) for wave in self.waves], self.cuts)


class _Reader(Dataset):
    """Indexed by a `CutSet`: what the sampler drew is what is read."""

    def __getitem__(self, cuts: CutSet) -> Batch | SpeechFTError:  # type: ignore[override]
        try:
            return Batch([read_cut(cut) for cut in cuts], list(cuts))
        except SpeechFTError as error:
            return error  # raised where it is read: a worker's exception would arrive as a page of traceback


def read_cut(cut: Any) -> Tensor:
    """A cut's audio as `[samples]` float32, mono.

    Raises:
        SpeechFTError: unreadable, or holding values that are not finite.
    """
    use_soundfile()
    try:
        samples = torch.from_numpy(cut.load_audio()).float().mean(dim=0)
    except Exception as error:  # lhotse wraps every decoder's own exception
        path = cut.recording.sources[0].source
        raise SpeechFTError(
            f"audio file {path} cannot be read ({str(error).strip().splitlines()[-1][:120]})",
            "replace it or remove it from the corpus",
        ) from error
    if not torch.isfinite(samples).all():
        raise SpeechFTError(f"utterance {cut.id} holds samples that are not finite", "replace its audio")
    return samples


class Batches:
    """An endless stream of training batches whose place can be written down and found again.

    The batches of an epoch depend on (seed, epoch, rank) alone, so a place is two numbers: the epoch and how many
    batches of it have been used. Workers that read ahead do not disturb it.

    Args:
        cuts: the corpus.
        seconds: batch by seconds of audio (None: by count).
        size: utterances in a batch at most (None: by seconds alone).
        buckets: how many duration buckets utterances are drawn from.
        seed: fixes the order.
        rank, world: this process among all.
        workers: reading processes.
    """

    def __init__(self, cuts: CutSet, seconds: float | None, size: int | None, buckets: int, seed: int,
                 rank: int = 0, world: int = 1, workers: int = 0) -> None:  # fmt: skip
        if not seconds and not size:
            raise UsageError("a batch has neither a number of seconds nor a size", "set data.batch_seconds")
        if (seconds or 1) <= 0 or (size or 1) <= 0 or buckets < 1 or workers < 0:
            raise UsageError(
                f"batches of {seconds} s, {size} utterances, {buckets} buckets, {workers} workers",
                "give positive numbers",
            )
        self._cuts, self._seconds, self._size = cuts, seconds, size
        self._buckets = max(1, min(buckets, len(cuts) // max(2, 2 * world)))
        self._seed, self._rank, self._world, self._workers = seed, rank, world, workers
        self.epoch, self.used = 0, 0

    def state(self) -> dict[str, int]:
        """The present place."""
        return {"epoch": self.epoch, "used": self.used}

    def restore(self, state: dict[str, int]) -> None:
        """Go to a place; takes effect at the next `iter()`."""
        self.epoch, self.used = int(state["epoch"]), int(state["used"])

    def plan(self, epoch: int) -> list[CutSet]:
        """The batches of an epoch, in order."""
        from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler

        common: dict[str, Any] = {
            "max_duration": self._seconds, "max_cuts": self._size, "shuffle": True, "seed": self._seed,
            "rank": self._rank, "world_size": self._world,
        }  # fmt: skip
        if self._buckets > 1:
            sampler: Any = DynamicBucketingSampler(self._cuts, num_buckets=self._buckets, **common)
        else:
            sampler = SimpleCutSampler(self._cuts, **common)
        sampler.set_epoch(epoch)
        return list(sampler)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            plan = self.plan(self.epoch)
            if not plan:
                raise SpeechFTError("the corpus gives no batch", "it is smaller than one batch; lower data.batch_size")
            remaining: Any = plan[self.used :]
            loader = DataLoader(
                _Reader(), sampler=remaining, batch_size=None, num_workers=self._workers,
                prefetch_factor=4 if self._workers else None,
            )  # fmt: skip
            for batch in loader:
                if isinstance(batch, SpeechFTError):
                    raise batch
                self.used += 1
                yield batch
            self.epoch, self.used = self.epoch + 1, 0


def in_order(cuts: CutSet, seconds: float) -> Iterator[Batch]:
    """Every cut once, longest first, in batches of at most so many seconds: for evaluation and extraction."""
    longest_first = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
    batch: list[Any] = []
    for cut in longest_first:
        if batch and (len(batch) + 1) * batch[0].duration > seconds:
            yield Batch([read_cut(item) for item in batch], batch)
            batch = []
        batch.append(cut)
    if batch:
        yield Batch([read_cut(item) for item in batch], batch)


def take(batches: Batches, count: int) -> list[Batch]:
    """The next `count` batches."""
    return list(itertools.islice(iter(batches), count))
