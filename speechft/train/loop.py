"""The training loop. Read it from top to bottom: it is all there is."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from speechft.checkpoints.hashing import weights_sha256
from speechft.console import progress, say
from speechft.data.loader import Batch, Batches, in_order
from speechft.errors import SpeechFTError
from speechft.runs import Run
from speechft.strategies.base import Strategy
from speechft.strategies.penalty import Penalty, penalised
from speechft.tasks.base import Task
from speechft.train import state as checkpoint_files
from speechft.train.metrics import MetricsFile
from speechft.train.optimizers import build_optimizer
from speechft.train.schedule import Schedule
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from accelerate import Accelerator
    from lhotse import CutSet


class Learner(nn.Module):
    """Upstream and head as one module, so that data-parallel wrapping sees both."""

    def __init__(self, upstream: Upstream, task: Task) -> None:
        super().__init__()
        self.upstream, self.task = upstream, task
        self.penalties: list[Penalty] = []

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        loss, figures = self.task.step(self.upstream, batch)
        return penalised(loss, figures, self.penalties, batch)


@dataclass
class Training:
    """One run of stage 1, ready to go.

    Attributes:
        options: the `trainer` group.
        head_lr: peak rate of the head; None is the upstream's.
        config_hash: hash of the resolved configuration, kept in every checkpoint.
    """

    run: Run
    accelerator: Accelerator
    upstream: Upstream
    task: Task
    strategy: Strategy
    batches: Batches
    dev: CutSet | None
    options: Mapping[str, Any]
    head_lr: float | None
    seed: int
    config_hash: str

    def go(self) -> dict[str, float]:
        """Train from wherever the run stands to the end; returns the last dev metrics.

        Raises:
            SpeechFTError: interrupted; or the loss stayed non-finite; or a frozen part changed.
        """
        options, accelerator = self.options, self.accelerator
        total = int(options["steps"])
        last = self.strategy.last_step(total)
        schedule = Schedule(total, float(options["warmup"]), float(options["hold"]))
        learner = Learner(self.upstream, self.task).to(accelerator.device)
        learner.train()
        learner.penalties = self.strategy.begin(self.upstream, total, self.seed)
        optimizer = build_optimizer(
            self.upstream, self.task, options, self.head_lr, self.strategy.rate_factors(self.upstream)
        )
        peaks = [group["lr"] for group in optimizer.param_groups]
        optimizer_handle = accelerator.prepare_optimizer(optimizer)

        start, seconds = 0, 0.0
        frozen_hash = self._frozen_hash()  # before a checkpoint is loaded: what the pre-trained model came with
        checkpoint = checkpoint_files.newest(self.run.checkpoints)
        if checkpoint is not None:
            saved = checkpoint_files.load(checkpoint, learner, optimizer)
            start, seconds = int(saved["step"]), float(saved["seconds"])
            self.batches.restore(saved["data"])
            if saved["scaler"] and accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(saved["scaler"])
            say(f"resuming {self.run.folder} at step {start} of {last}")
        log = MetricsFile(self.run.metrics, start) if accelerator.is_main_process else None
        stream, stop = iter(self.batches), _StopSignal()
        model: nn.Module = learner
        phase, skipped, metrics = "", 0, {}

        with progress("training", last, start) as advance, stop:
            for step in range(start, last):
                # Phase and rate follow from the step alone, so a resumed run is where it was.
                if self.strategy.phase(step, total) != phase:
                    phase = self.strategy.phase(step, total)
                    model = self._enter_phase(learner, step, total)
                    if log and (step == 0 or self.strategy.phase(step - 1, total) != phase):
                        log.write(step=step, phase=phase, event="phase", **self._hashes())
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * schedule.factor(step)

                loss, figures, heard = self._accumulate(model, stream, step)
                seconds += heard
                norm = accelerator.clip_grad_norm_(learner.parameters(), float(options["clip"]))
                # Under float16 the scaler itself skips a step whose gradients overflow, and lowers its scale.
                overflow = accelerator.scaler is None and not bool(torch.isfinite(torch.as_tensor(norm)))
                if np.isfinite(loss) and not overflow:
                    optimizer_handle.step()
                    skipped = 0
                else:
                    skipped = self._skip(step, loss, skipped)
                    if accelerator.scaler is not None:  # it was told to unscale, and expects to be told of the outcome
                        accelerator.scaler.update()
                optimizer_handle.zero_grad(set_to_none=True)
                done = step + 1

                if log and (done % int(options["log_every"]) == 0 or done == last):
                    rate = optimizer.param_groups[-1]["lr"]
                    log.write(
                        step=done,
                        phase=phase,
                        lr=rate,
                        loss=loss,
                        **figures,
                        grad_norm=float(norm),
                        seconds_of_audio=round(seconds, 2),
                    )
                advance(done, f"{phase} loss {loss:.3f}")
                if self.dev is not None and (done % int(options["eval_every"]) == 0 or done == last):
                    metrics = self._evaluate(learner)
                    if log:
                        log.write(step=done, phase=phase, **{f"dev_{key}": value for key, value in metrics.items()})
                        say(f"step {done}: " + ", ".join(f"dev {key} {value:.2f}" for key, value in metrics.items()))
                if done % int(options["checkpoint_every"]) == 0 or done == last or stop.asked:
                    self._save(done, learner, optimizer, seconds)
                if stop.asked and done < last:
                    raise SpeechFTError(f"interrupted after step {done}", "run the same command to go on from there")

        if self._frozen_hash() != frozen_hash:
            raise SpeechFTError(
                "a frozen part of the upstream has changed", "this is a fault of speechft: please report it"
            )
        if log:
            log.write(step=last, phase=self.strategy.phase(last - 1, total), event="end", **self._hashes())
        return metrics

    def _enter_phase(self, learner: Learner, step: int, total: int) -> nn.Module:
        self.strategy.enter(learner.upstream, learner.task, step, total)
        # Wrapped anew, because data-parallel training decides at wrapping which parameters have gradients.
        return self.accelerator.prepare_model(learner)

    def _accumulate(
        self, model: nn.Module, stream: Iterator[Batch], step: int
    ) -> tuple[float, dict[str, float], float]:
        """Gradients of one optimiser step; returns the mean loss, figures to log, and the seconds of audio heard."""
        count, losses, seconds, figures = int(self.options["accumulate"]), [], 0.0, {}
        for part in range(count):
            batch = next(stream).to(self.accelerator.device)
            # The random state follows from the step too (dropout, masks), so no generator state needs saving. It is set
            # after reading, because a loader that starts, at a resume or a new epoch, draws from it.
            _seed(self.seed, step, part, self.accelerator.process_index)
            with self.accelerator.autocast():
                loss, figures = model(batch)
            self.accelerator.backward(loss / count)
            losses.append(float(loss.detach()))
            seconds += batch.seconds
        return sum(losses) / count, figures, seconds

    def _skip(self, step: int, loss: float, skipped: int) -> int:
        skipped += 1
        say(f"step {step}: the loss or its gradient is not finite ({loss}); step skipped ({skipped} in a row)")
        if skipped >= int(self.options["patience_nan"]):
            raise SpeechFTError(
                f"{skipped} steps in a row gave a non-finite loss", "lower trainer.lr, or use trainer.precision=no"
            )
        return skipped

    def _evaluate(self, learner: Learner) -> dict[str, float]:
        learner.eval()
        assert self.dev is not None
        with torch.no_grad():
            batches = (batch.to(self.accelerator.device) for batch in in_order(self.dev, 120.0))
            metrics = self.task.evaluate(self.upstream, batches)
        learner.train()
        return metrics

    def _save(self, step: int, learner: Learner, optimizer: torch.optim.Optimizer, seconds: float) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        readable = {
            "seconds": seconds,
            "data": self.batches.state(),
            "seed": self.seed,
            "config_sha256": self.config_hash,
            "task": self.task.settings(),
        }
        checkpoint_files.save(
            self.run.checkpoints,
            step,
            learner,
            {"optimizer": optimizer.state_dict(), "scaler": scaler},
            readable,
            max(1, int(self.options["keep"])),
        )

    def _hashes(self) -> dict[str, str]:
        parts = self.upstream.parts()
        hashes = {
            "upstream_sha256": weights_sha256(dict(self.upstream.named_parameters())),
            "head_sha256": weights_sha256(dict(self.task.named_parameters())),
        }
        if "cnn" in parts:
            hashes["cnn_sha256"] = _hash(parts["cnn"])
        return hashes

    def _frozen_hash(self) -> str:
        return weights_sha256(self.strategy.frozen(self.upstream, int(self.options["steps"])))


def _hash(parameters: list[nn.Parameter]) -> str:
    return weights_sha256({str(index): parameter for index, parameter in enumerate(parameters)})


def _seed(*numbers: int) -> None:
    """Set every generator from (seed, step, part, rank)."""
    words = np.random.SeedSequence([number & 0xFFFFFFFF for number in numbers]).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))


class _StopSignal:
    """Ctrl-C or a scheduler's SIGTERM finishes the step, writes a checkpoint, and stops."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> _StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: a notebook's or a test's business
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
