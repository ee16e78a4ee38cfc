"""Short measurements for the estimate: how fast an upstream hears, how long a head's step takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speechft.data.audio import SAMPLE_RATE
from speechft.superb.extract import encode
from speechft.superb.store import Key, Layout, Room

if TYPE_CHECKING:
    from speechft.superb.items import Split
    from speechft.superb.settings import Settings
    from speechft.superb.tasks.base import Task
    from speechft.upstreams.base import Upstream

UPSTREAM_SECONDS = 5.0
HEAD_SECONDS = 2.0
_HEAD_AT_MOST = 10.0  # for the first step, which also wakes the device, and a few more
_FEWEST_STEPS = 1000  # a head with fewer is not timed
_FIRST_SHARE = 0.05  # of each utterance, in the first batch of a head on frames
_FEWEST_FRAMES = 16  # of a shortened utterance
_NEVER = 1 << 30  # a step that is not reached
_LONGEST = 20 * SAMPLE_RATE


def speed_of(upstream: Upstream, lengths: Sequence[int], settings: Settings) -> float:
    """Seconds of audio that the upstream hears in a second on the first device.

    Batches as an extraction makes them, of noise; the first waveform, which also wakes the device, counts only if no
    time is left for a batch. `compile` is not waited for.

    Args:
        lengths: of the corpora's waveforms, in samples.
    """
    device = torch.device(settings.device)
    upstream = upstream.to(device).eval()
    ordered = sorted(length for length in lengths if length)
    noise = np.random.default_rng(0).normal(0, 0.1, _LONGEST).astype(np.float32)

    def hear(count: int, part: float) -> float:
        """Encode so many waveforms around a quantile of the lengths; seconds of audio a second."""
        middle = int(part * (len(ordered) - 1))
        chosen = ordered[max(0, middle - count // 2) :][:count]
        waves = [noise[: min(length, _LONGEST)] for length in chosen]
        began = time.monotonic()
        encode(upstream, waves, "pooled", device, settings.batch_seconds, settings.numerics)  # copies: it has finished
        return sum(len(wave) for wave in waves) / SAMPLE_RATE / max(1e-9, time.monotonic() - began)

    began = time.monotonic()
    alone = speed = hear(1, 0.5)
    found = []
    for part in (0.5, 0.25, 0.75):
        left = UPSTREAM_SECONDS - (time.monotonic() - began)
        typical = min(_LONGEST, ordered[int(part * (len(ordered) - 1))]) / SAMPLE_RATE
        count = int(min(max(settings.batch_seconds, typical), left / 2 * speed) / typical)
        if count < 1:
            continue
        speed = hear(count, part)
        found.append(speed)
    return float(np.mean(found)) if found else alone


class _Noise:
    """Stands for stored features: the right sizes, values of no meaning."""

    def __init__(self, key: Key, layout: Layout) -> None:
        self.key, self.layout = key, layout
        self.block = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)

    def __len__(self) -> int:
        return len(self.layout.rows)

    @property
    def nbytes(self) -> int:
        return self.layout.total_bytes(self.key)

    def gather(self, items: Sequence[int], room: Room | None = None) -> tuple[np.ndarray, list[int]]:
        del room
        counts = [int(self.layout.rows[item]) for item in items]
        return np.resize(self.block, (sum(counts), self.layout.layers, self.layout.dim)), counts


class _Enough(Exception):
    """The time for measuring is over."""


class _Frames(_Noise):
    """Noise for a head on frames, on a CPU: times each batch from its look-up to the next one's.

    A step of a large head takes half a minute. Where utterances may be of any length they are shortened until a batch
    takes about `HEAD_SECONDS`; what frames take is in proportion, what weights take (the optimizer's step) is then
    counted too often.

    Args:
        shortens: whether utterances may be shorter than their labels say.

    Attributes:
        share: of each utterance that is heard.
        began: when each batch was looked up.
        rows, items: frames and utterances of each batch.
    """

    def __init__(self, key: Key, layout: Layout, shortens: bool) -> None:
        super().__init__(key, layout)
        self.shortens, self.share = shortens, _FIRST_SHARE if shortens else 1.0
        self.began: list[float] = []
        self.rows: list[int] = []
        self.items: list[int] = []

    def gather(self, items: Sequence[int], room: Room | None = None) -> tuple[np.ndarray, list[int]]:
        del room
        whole = [int(self.layout.rows[item]) for item in items]
        self.began.append(time.monotonic())
        if len(self.began) > 1:
            self._go_on_or_stop(sum(whole))
        counts = [min(rows, max(_FEWEST_FRAMES, round(self.share * rows))) for rows in whole]
        self.rows.append(sum(counts))
        self.items.append(len(counts))
        return np.resize(self.block, (sum(counts), self.layout.layers, self.layout.dim)), counts

    def _go_on_or_stop(self, whole: int) -> None:
        """Args: whole: frames of the next batch."""
        spent = self.began[-1] - self.began[0]
        expected = (self.began[-1] - self.began[-2]) / self.rows[-1] * whole
        if self.shortens:
            self.share = min(1.0, max(self.share, HEAD_SECONDS / max(1e-9, expected)))
        enough = spent > HEAD_SECONDS and len(self.began) > 3
        if enough or spent + self.share * expected > _HEAD_AT_MOST:
            raise _Enough

    def frame_seconds(self) -> float:
        """Of one frame, forward and backward, with its part of the update; the first batch also wakes the device."""
        times = np.diff(self.began)
        first = min(1, len(times) - 1)
        return float(np.sum(times[first:]) / np.sum(self.rows[first : len(times)]))

    def batch_rows(self) -> float:
        """Frames of a batch of utterances of mean length."""
        return float(np.mean(self.items) * np.mean(self.layout.rows))


def head_seconds(
    task: Task, config: Mapping[str, Any], featurizer: Any, expert: Any, splits: Mapping[str, Split],
    upstream: Upstream, settings: Settings,
) -> float | None:  # fmt: skip
    """About how long the fast engine trains the task's head, from steps on noise; None where that is not cheap.

    A head with few steps is not timed, nor s3prl's own loop. An evaluated batch (on a CPU a frame) counts as a third
    of a trained one. What reading frames from the disk takes is not in it.

    Args:
        featurizer, expert: of `assemble.build_modules`; used up.
    """
    from speechft.superb.extract import plan
    from speechft.superb.tasks.text import TextTask

    recipe = settings.superb[task.name]
    if settings.engine != "fast" or int(recipe.get("steps", 0)) < _FEWEST_STEPS:
        return None
    total = int(recipe["steps"])
    evaluations = total // min(int(recipe["eval_step"]), total)

    def layout(name: str) -> tuple[Key, Layout]:
        return plan(task, splits[name], upstream, "", settings.frames_dtype, settings.numerics)

    try:
        if task.kind != "pooled" and torch.device(settings.device).type == "cpu":
            frames = _Frames(*layout("train"), shortens=isinstance(task, TextTask))
            _train(task, config, featurizer, expert, splits["train"], frames, settings, lambda: None)
            heard = evaluations * _rows(layout(task.selected_on)) + _rows(layout("test"))
            trained = total * int(recipe["accumulate"]) * frames.batch_rows()
            return frames.frame_seconds() * (trained + heard / 3)
        step = _median_step(task, config, featurizer, expert, splits["train"], _Noise(*layout("train")), settings)
        batches = evaluations * len(task.loader(expert, task.selected_on)) + len(task.loader(expert, "test"))
    except Exception:
        return None  # what is wrong, the training itself will say
    return None if step is None else step * total + step / int(recipe["accumulate"]) / 3 * batches


def _rows(planned: tuple[Key, Layout]) -> int:
    return int(np.sum(planned[1].rows))


def _median_step(
    task: Task, config: Mapping[str, Any], featurizer: Any, expert: Any, split: Split, noise: _Noise,
    settings: Settings,
) -> float | None:  # fmt: skip
    """Seconds of an optimizer step; None if it takes too long to see two."""
    times: list[float] = []

    def tick() -> None:
        times.append(time.monotonic())
        if times[-1] - times[0] > (HEAD_SECONDS if len(times) > 4 else _HEAD_AT_MOST):
            raise _Enough

    _train(task, config, featurizer, expert, split, noise, settings, tick)
    steady = np.diff(times[1:])
    # the machine's other work makes some steps many times longer
    return float(np.median(steady)) if len(steady) > 1 else None


def _train(
    task: Task, config: Mapping[str, Any], featurizer: Any, expert: Any, split: Split, noise: Any, settings: Settings,
    tick: Callable[[], None],
) -> None:  # fmt: skip
    """Train on noise until it, or `tick`, which is called before the first step and after each, has enough."""
    from speechft.superb.batches import FeatureSplit
    from speechft.superb.fast import FastRun

    device = torch.device(settings.device)
    runner = {**config["runner"], "total_steps": _NEVER, "eval_step": _NEVER, "log_step": _NEVER}
    train = FeatureSplit(task, expert, split, noise, device)
    run = FastRun(
        task, {**config, "runner": runner}, featurizer, expert, {"train": train}, settings.seed, device,
        progress=lambda done, of: tick(),
    )  # fmt: skip
    run.rates = settings.superb[task.name]["lr"]
    with contextlib.suppress(_Enough):
        tick()
        run.run()
