"""From cuts to batches: lhotse's bucketing sampler draws them in an order fixed by the seed, a dataset reads them."""

from __future__ import annotations

import hashlib
import itertools
import random
import signal
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from speechft.data.audio import load_audio, use_soundfile
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet


@dataclass
class Batch:
    """Utterances read together.

    Attributes:
        waves: 1-D float32 waveforms at 16 kHz, one per cut.
        cuts: the lhotse cuts they came from, with their labels.
        digests: a hash of each waveform's samples, where somebody asked for it.
    """

    waves: list[Tensor]
    cuts: list[Any]
    digests: list[str] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of audio, without padding."""
        return sum(wave.numel() for wave in self.waves) / 16_000

    def to(self, device: torch.device | str) -> Batch:
        return Batch([wave.to(device, non_blocking=True) for wave in self.waves], self.cuts, self.digests)

    def pin_memory(self) -> Batch:
        """In page-locked memory, from which a GPU fetches while it computes."""
        return Batch([wave.pin_memory() for wave in self.waves], self.cuts, self.digests)


class _Reader(Dataset):
    """Indexed by a `CutSet`: what the sampler drew is what is read."""

    def __init__(self, digests: bool = False) -> None:
        self._digests = digests

    def __getitem__(self, cuts: CutSet) -> Batch | SpeechFTError:  # type: ignore[override]
        try:
            waves = [read_cut(cut) for cut in cuts]
        except SpeechFTError as error:
            return error  # raised where it is read: a worker's exception would arrive as a page of traceback
        return Batch(waves, list(cuts), [digest(wave) for wave in waves] if self._digests else None)


def digest(wave: Tensor) -> str:
    """A hash of a waveform's samples."""
    return hashlib.blake2b(wave.contiguous().numpy().data, digest_size=16).hexdigest()


def read_cut(cut: Any) -> Tensor:
    """A cut's audio as `[samples]` float32, mono.

    Raises:
        SpeechFTError: unreadable, or holding values that are not finite.
    """
    use_soundfile()
    try:
        samples = torch.from_numpy(cut.load_audio()).float().mean(dim=0)
    except Exception as error:  # lhotse wraps every decoder's own exception, and some hide what they met
        path = cut.recording.sources[0].source
        try:
            load_audio(path)
            reason = str(error).strip().splitlines()[-1][:120]
        except SpeechFTError as found:
            reason = found.what.rpartition("cannot be read (")[2].rstrip(")")
        raise SpeechFTError(
            f"audio file {path} cannot be read ({reason})",
            "replace it or remove it from the corpus; data.checks.decode=true finds all of its kind before training",
        ) from error
    if not torch.isfinite(samples).all():
        raise SpeechFTError(
            f"utterance {cut.id} holds samples that are not finite",
            "replace its audio; data.checks.decode=true finds all such files, and data.skip_bad=true leaves them out",
        )
    return samples


def _undisturbed(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes; the one that trains decides when it is over."""
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """A loader's iterator. While its workers start, signals wait: one that came before `_undisturbed` would end them,
    and with them the training, without a checkpoint."""
    if not loader.num_workers or not hasattr(signal, "pthread_sigmask"):
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Batches:
    """An endless stream of training batches whose place can be written down and found again.

    The batches of an epoch and their order depend on (seed, epoch) alone. Of `world` processes each takes every
    `world`-th batch of that one stream, across the ends of epochs too: two processes read in a step what one process
    reads in two. So a place is two numbers, the same for every process: the epoch, and how many batches of it all
    processes together have used. Workers that read ahead do not disturb it.

    Args:
        cuts: the corpus.
        seconds: batch by seconds of audio, padding counted (None: by count).
        size: utterances in a batch at most (None: by seconds alone).
        buckets: how many duration buckets utterances are drawn from.
        seed: fixes the order.
        rank, world: this process among all.
        workers: reading processes.
        pin: give batches in page-locked memory, for a GPU.
        digests: hash every waveform.
    """

    def __init__(self, cuts: CutSet, seconds: float | None, size: int | None, buckets: int, seed: int,
                 rank: int = 0, world: int = 1, workers: int = 0, pin: bool = False,
                 digests: bool = False) -> None:  # fmt: skip
        if not seconds and not size:
            raise UsageError(
                f"data.batch_seconds={seconds} and data.batch_size={size}",
                "give one of them, above 0: seconds of audio, or utterances",
            )
        if (seconds or 1) <= 0 or (size or 1) <= 0 or buckets < 1 or workers < 0:
            raise UsageError(
                f"batches of {seconds} s, {size} utterances, {buckets} buckets, {workers} workers",
                "give positive numbers",
            )
        self._cuts, self._seconds, self._size = cuts, seconds, size
        self._buckets = max(1, min(buckets, len(cuts) // 2))
        self._seed, self._rank, self._world, self.workers = seed, rank, world, workers
        self._pin, self._digests = pin, digests
        self._lengths: dict[int, int] = {}
        self.epoch, self.used = 0, 0

    def state(self) -> dict[str, int]:
        """The present place."""
        return {"epoch": self.epoch, "used": self.used}

    def restore(self, state: dict[str, int]) -> None:
        """Go to a place; takes effect at the next `iter()`."""
        self.epoch, self.used = int(state["epoch"]), int(state["used"])

    def plan(self, epoch: int) -> list[CutSet]:
        """The batches of an epoch, for all processes, in order.

        lhotse draws the utterances of a bucket by seed and epoch, but takes the buckets in an order that is the same
        for all seeds and epochs, a small corpus's long utterances first. So the batches are shuffled once more.
        """
        from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler

        common: dict[str, Any] = {
            "max_duration": self._seconds, "max_cuts": self._size, "shuffle": True, "seed": self._seed,
            "rank": 0, "world_size": 1,
        }  # fmt: skip
        if self._buckets > 1:
            with warnings.catch_warnings():  # that all cuts are in memory, which they are meant to be
                warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler", UserWarning)
                sampler: Any = DynamicBucketingSampler(self._cuts, num_buckets=self._buckets, **common)
        else:
            sampler = SimpleCutSampler(self._cuts, **common)
        sampler.set_epoch(epoch)
        batches = [piece for batch in sampler for piece in _within(batch, self._seconds)]
        random.Random(f"{self._seed} {epoch}").shuffle(batches)
        return batches

    def _planned(self, epoch: int) -> list[CutSet]:
        plan = self.plan(epoch)
        if not plan:
            raise SpeechFTError("the corpus gives no batch", "it is smaller than one batch; lower data.batch_size")
        self._lengths[epoch] = len(plan)
        return plan

    def _own(self) -> Iterator[CutSet]:
        """This process's batches from the present place on, without end."""
        epoch, place = self.epoch, self.used + self._rank
        while True:
            plan = self._planned(epoch)
            yield from plan[place :: self._world]
            while place < len(plan):
                place += self._world
            epoch, place = epoch + 1, place - len(plan)

    def _advance(self) -> None:
        self.used += self._world
        while self.used >= (length := self._lengths.get(self.epoch) or len(self._planned(self.epoch))):
            self.epoch, self.used = self.epoch + 1, self.used - length

    def __iter__(self) -> Generator[Batch, None, None]:
        # One loader for all epochs: its workers read on into the next one, so that no epoch begins with waiting.
        loader = DataLoader(
            _Reader(self._digests), sampler=self._own(), batch_size=None, num_workers=self.workers,  # type: ignore[arg-type]
            prefetch_factor=4 if self.workers else None, pin_memory=self._pin, generator=torch.Generator(),
            worker_init_fn=_undisturbed,
        )  # fmt: skip
        for batch in _started(loader):
            if isinstance(batch, SpeechFTError):
                raise batch
            self._advance()
            yield batch


def _within(batch: CutSet, seconds: float | None) -> Iterator[CutSet]:
    """A batch in pieces of at most so many seconds, padding counted.

    lhotse stops where one more utterance like the longest so far would be too much, so a much longer one may still
    come in. What is longer than a batch is a piece of its own.
    """
    from lhotse import CutSet

    piece: list[Any] = []
    for cut in batch:
        if seconds and piece and (len(piece) + 1) * max(one.duration for one in (*piece, cut)) > seconds:
            yield CutSet.from_cuts(piece)
            piece = []
        piece.append(cut)
    if piece:
        yield CutSet.from_cuts(piece)


def in_order(cuts: CutSet, seconds: float, rank: int = 0, world: int = 1, workers: int = 0) -> Iterator[Batch]:
    """Every cut once, longest first, in batches of at most so many seconds: for evaluation and extraction.

    Args:
        cuts: the corpus.
        seconds: of audio in a batch, padding included.
        rank, world: of the batches only every `world`-th, from the `rank`-th on.
        workers: reading processes.
    """
    longest_first = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
    plan: list[list[Any]] = []
    for cut in longest_first:
        if not plan or (len(plan[-1]) + 1) * plan[-1][0].duration > seconds:
            plan.append([])
        plan[-1].append(cut)
    loader = DataLoader(
        _Reader(), sampler=plan[rank::world], batch_size=None, num_workers=workers,  # type: ignore[arg-type]
        generator=torch.Generator(),  # or it would draw from everybody's
        worker_init_fn=_undisturbed,
    )  # fmt: skip
    for batch in _started(loader):
        if isinstance(batch, SpeechFTError):
            raise batch
        yield batch


def take(batches: Batches, count: int) -> list[Batch]:
    """The next `count` batches."""
    return list(itertools.islice(iter(batches), count))
