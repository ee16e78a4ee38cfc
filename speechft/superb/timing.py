"""Short measurements for the estimate: how fast an upstream hears, how long a head's step takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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


def head_seconds(
    task: Task, config: Mapping[str, Any], featurizer: Any, expert: Any, splits: Mapping[str, Split],
    upstream: Upstream, settings: Settings,
) -> float | None:  # fmt: skip
    """About how long the fast engine trains the task's head, from steps on noise; None where that is not cheap.

    It is cheap for pooled features, and on a GPU. An evaluated batch counts as a third of a trained one. What reading
    frames from the disk takes is not in it.

    Args:
        featurizer, expert: of `assemble.build_modules`; used up.
    """
    from speechft.superb.batches import FeatureSplit
    from speechft.superb.extract import plan
    from speechft.superb.fast import FastRun

    recipe, device = settings.superb[task.name], torch.device(settings.device)
    if settings.engine != "fast" or int(recipe.get("steps", 0)) < _FEWEST_STEPS:
        return None
    if task.kind != "pooled" and device.type == "cpu":
        return None
    total, times = int(recipe["steps"]), [time.monotonic()]

    def tick(done: int, of: int) -> None:
        del done, of
        times.append(time.monotonic())
        if times[-1] - times[0] > (HEAD_SECONDS if len(times) > 4 else _HEAD_AT_MOST):
            raise _Enough

    try:
        noise: Any = _Noise(*plan(task, splits["train"], upstream, "", settings.frames_dtype, settings.numerics))
        train = FeatureSplit(task, expert, splits["train"], noise, device)
        runner = {**config["runner"], "eval_step": total + 1, "log_step": total + 1}
        run = FastRun(
            task, {**config, "runner": runner}, featurizer, expert, {"train": train}, settings.seed, device,
            progress=tick,
        )  # fmt: skip
        run.rates = recipe["lr"]
        times[0] = time.monotonic()
        run.run()
    except _Enough:
        pass
    except Exception:
        return None  # what is wrong, the training itself will say
    steady = np.diff(times[1:])
    if len(steady) < 2:
        return None
    step = float(np.median(steady))  # the machine's other work makes some steps many times longer
    evaluations = total // min(int(recipe["eval_step"]), total)
    batches = evaluations * len(task.loader(expert, task.selected_on)) + len(task.loader(expert, "test"))
    return step * total + step / int(recipe["accumulate"]) / 3 * batches
