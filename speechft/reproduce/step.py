"""One real step of a training, timed on this device: noise of the right length, with the task's own head and loss."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.data.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from lhotse import CutSet

    from speechft.upstreams.base import Upstream

CPU_SECONDS = 10.0
"""At most so much audio in the batch that is timed on a CPU; the time of the whole batch is taken in proportion."""
_LABELS = {"text": "A SMALL TEST", "phones": "AH S M AO L T EH S T", "pinyin": "a1"}
_CLASSES = 4  # of every label that is a class: their number is nothing beside the upstream's work


@dataclass(frozen=True)
class StepTime:
    """Seconds on this device.

    Attributes:
        head: of a micro-batch, forward and backward, while the upstream is frozen; NaN where it never is.
        full: the same while it trains.
        update: of clipping and the optimiser's step.
        hear: of a second of audio through the upstream alone, without gradients.
        audio: seconds of audio in a micro-batch.
        timed: seconds of audio in the micro-batch that was timed.
        parameters: of the upstream, of the head, and how many of both have a state of the optimiser at the end.
    """

    head: float
    full: float
    update: float
    hear: float
    audio: float
    timed: float
    parameters: tuple[int, int, int]

    def of_run(self, steps: int, frozen: int, accumulate: int, share: float = 1.0) -> float:
        """Seconds of so many optimiser steps, of which the first `frozen` train the head alone."""
        head = min(steps, frozen)
        micro = (head * self.head if head else 0.0) + (steps - head) * self.full
        return share * (accumulate * micro + steps * self.update)


def time_step(settings: Mapping[str, Any], upstream: Upstream, seconds: float) -> StepTime:
    """Train a few micro-batches of noise in both phases.

    Args:
        settings: a configuration of one task (`parts.Part.settings`).
        upstream: of the row's architecture; adapters of the strategy are merged into it afterwards.
        seconds: mean length of an utterance.

    Raises:
        UsageError: an impossible setting.
        SpeechFTError: out of memory.
    """
    from speechft.train import devices
    from speechft.train.options import read_trainer

    trainer = read_trainer(settings["trainer"])
    accelerator = devices.start(trainer)
    on_cpu = accelerator.device.type == "cpu"
    count = _utterances(settings["data"], seconds)
    timed = max(1, min(count, int(CPU_SECONDS / seconds))) if on_cpu else count
    with tempfile.TemporaryDirectory(prefix="speechft-step-") as folder:
        cuts = _noise(Path(folder), max(timed, 4), seconds)
        return _timed(settings, trainer, accelerator, upstream, cuts, Path(folder), count, timed, on_cpu)


def _timed(
    settings: Mapping[str, Any], trainer: Mapping[str, Any], accelerator: Any, upstream: Upstream, cuts: CutSet,
    folder: Path, count: int, timed: int, on_cpu: bool,
) -> StepTime:  # fmt: skip
    import torch

    from speechft.data.loader import Batch, read_cut
    from speechft.strategies.build import build_strategy
    from speechft.tasks.build import build_task
    from speechft.train import memory
    from speechft.train.learner import Learner
    from speechft.train.optimizers import build_optimizer

    device, total = accelerator.device, int(trainer["steps"])
    strategy = build_strategy(settings["strategy"])
    upstream = upstream.to(device)
    task = build_task(_cheap(settings["task"]))
    task.prepare(upstream, cuts, None, folder)
    learner = Learner(upstream, task).to(device).train()
    learner.penalties = strategy.begin(upstream, total, 0)
    if trainer["gradient_checkpointing"]:
        memory.recompute_layers(upstream)
    optimizer = accelerator.prepare_optimizer(build_optimizer(upstream, task, trainer, None))
    chosen = list(cuts)[:timed]
    batch = Batch([read_cut(cut) for cut in chosen], chosen).to(device)

    def micro() -> None:
        try:
            with accelerator.autocast():
                loss, _ = learner(batch)
            accelerator.backward(loss)
        except RuntimeError as error:
            raise memory.explained(error, "at step 1", trainer, batch) from error

    def update() -> None:
        accelerator.clip_grad_norm_(learner.parameters(), float(trainer["clip"]))
        optimizer.step()

    def hear() -> None:
        with torch.no_grad(), accelerator.autocast():
            upstream(batch.waves, last_only=True)

    scale, times = count / timed, {"head": float("nan")}
    phases = [("full", total - 1)] if not strategy.frozen_steps(total) else [("head", 0), ("full", total - 1)]
    for name, step in phases:
        strategy.enter(upstream, task, step, total)
        times[name] = scale * _median(micro, on_cpu)
    times["update"] = _median(update, on_cpu)
    trained = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    optimizer.zero_grad(set_to_none=True)
    times["hear"] = _median(hear, on_cpu) / batch.seconds
    strategy.end(upstream)
    upstream.requires_grad_(False).eval()
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in (upstream, task)]
    return StepTime(**times, audio=scale * batch.seconds, timed=batch.seconds, parameters=(sizes[0], sizes[1], trained))


def _median(work: Callable[[], None], on_cpu: bool) -> float:
    """Seconds of a call, after one that warms up."""
    import torch

    def wait() -> float:
        if not on_cpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    work()
    found = []
    for _ in range(1 if on_cpu else 3):
        began = wait()
        work()
        found.append(wait() - began)
    return statistics.median(found)


def _utterances(data: Mapping[str, Any], seconds: float) -> int:
    """How many utterances of mean length a batch has."""
    by_seconds = int(float(data["batch_seconds"]) / seconds) if data["batch_seconds"] else None
    counts = [count for count in (by_seconds, data["batch_size"]) if count]
    return max(1, min(int(count) for count in counts)) if counts else 1


def _cheap(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task without what is done once before training: phones come with the noise, clusters are of MFCCs and few."""
    changed = dict(task)
    if changed.get("lexicon"):
        changed["lexicon"] = None
    if "codebooks" in changed:
        changed["codebooks"] = [{"features": "mfcc", "clusters": 16, "splits": 1} for _ in changed["codebooks"]]
    return changed


def _noise(folder: Path, count: int, seconds: float) -> CutSet:
    """Utterances of noise with every label that a task may read."""
    import numpy as np
    import soundfile

    from speechft.data.corpora import load_cuts

    generator = np.random.default_rng(0)
    classes = ("speaker", "emotion", "keyword", "action", "object", "location")
    lines = ["\t".join(["id", "path", *_LABELS, *classes])]
    for number in range(count):
        wave = generator.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
        soundfile.write(folder / f"{number}.wav", wave, SAMPLE_RATE)
        own = [f"{name}{number % _CLASSES}" for name in classes]
        lines.append("\t".join([f"noise{number}", f"{number}.wav", *_LABELS.values(), *own]))
    (folder / "noise.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_cuts([{"kind": "tsv", "path": str(folder / "noise.tsv")}])[0]
