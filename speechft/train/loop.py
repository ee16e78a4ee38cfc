"""The training loop. Read it from top to bottom: it is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from speechft.checkpoints.hashing import weights_sha256
from speechft.console import progress, say
from speechft.data.loader import Batch, Batches
from speechft.errors import Interrupted, SpeechFTError, UsageError
from speechft.runs import Run
from speechft.strategies.base import HEAD_PHASE, Strategy
from speechft.tasks.base import Task
from speechft.train import devices, memory
from speechft.train import state as checkpoint_files
from speechft.train.average import Average
from speechft.train.evaluation import evaluate
from speechft.train.guard import NanGuard
from speechft.train.interrupt import StopSignal
from speechft.train.learner import Learner
from speechft.train.metrics import MetricsFile, means
from speechft.train.optimizers import build_optimizer
from speechft.train.randomness import seed_all
from speechft.train.schedule import Schedule
from speechft.train.selection import Selection
from speechft.train.trackers import Tracker
from speechft.upstreams.base import Upstream
from speechft.upstreams.kept_cnn import KeptCnn
from speechft.upstreams.pages import keep_pages

if TYPE_CHECKING:
    from accelerate import Accelerator
    from lhotse import CutSet


def _nothing() -> None:
    """Where nobody wants to be called."""


@dataclass
class Training:
    """One run of stage 1, ready to go.

    Attributes:
        options: the `trainer` group, as `read_trainer` gives it.
        head_lr: peak rate of the head; None is the upstream's.
        config_hash: hash of the resolved configuration, kept in every checkpoint.
        trackers: besides `metrics.jsonl`.
        corpora: marks of the training and the dev set (`check.corpus_mark`), kept likewise.
        overruled: go on although configuration, data or the number of processes have changed.
        begun: called once the run's checkpoint, if it has one, has been loaded.
        kept: see `Learner`.
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
    corpora: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trackers: Sequence[Tracker] = ()
    overruled: bool = False
    begun: Callable[[], None] = _nothing
    kept: KeptCnn | None = None

    def go(self) -> Outcome:
        """Train from wherever the run stands to the end; the upstream is then what becomes `finetuned/`.

        Raises:
            SpeechFTError: interrupted; or the loss stayed non-finite; or a frozen part changed; or out of memory.
            UsageError: the checkpoint is of other data or labels, or another number of processes.
        """
        options, accelerator, first = self.options, self.accelerator, self.accelerator.is_main_process
        total = int(options["steps"])
        last = self.strategy.last_step(total)
        schedule = Schedule(total, float(options["warmup"]), float(options["hold"]))
        learner = Learner(self.upstream, self.task, self.kept).to(accelerator.device)
        learner.train()
        learner.penalties = self.strategy.begin(self.upstream, total, self.seed)
        if options["gradient_checkpointing"]:
            memory.recompute_layers(self.upstream)
        if accelerator.device.type == "cpu":
            keep_pages()
        optimizer = build_optimizer(
            self.upstream, self.task, options, self.head_lr, self.strategy.rate_factors(self.upstream)
        )
        peaks = [group["lr"] for group in optimizer.param_groups]
        optimizer_handle = accelerator.prepare_optimizer(optimizer)
        average = Average(learner, float(options["ema"])) if options["ema"] else None
        selection = Selection(self.task.metric, self.task.higher_is_better, options["patience"])

        guard = NanGuard(int(options["patience_nan"]), first)
        start, seconds, moved = 0, 0.0, 0  # moved: updates of the upstream
        frozen_hash = self._frozen_hash()  # before a checkpoint is loaded: what the pre-trained model came with
        checkpoint = checkpoint_files.newest(self.run.checkpoints, clear=first)
        if checkpoint is not None:
            if not self.overruled:  # before the weights, which other labels would not fit
                known = checkpoint_files.read_state(checkpoint)
                devices.check_count(int(known["processes"]), int(options["accumulate"]), self.run.folder)
                checkpoint_files.check_data(known, self.task.settings(), self.corpora, self.run.folder)
            saved = checkpoint_files.load(checkpoint, learner, average, optimizer)
            start, seconds, moved = int(saved["step"]), float(saved["seconds"]), int(saved.get("moved", 1))
            if start > last:
                raise UsageError(f"{self.run.folder} is at step {start} already", "give more trainer.steps than that")
            guard.restore(saved, self.overruled)
            self.batches.restore(saved["data"])
            selection.restore(saved["best"])
            if saved["scaler"] and accelerator.scaler is not None:
                accelerator.scaler.load_state_dict(saved["scaler"])
            if first:
                say(f"resuming {self.run.folder} at step {start} of {last}")
        if first:
            self.begun()
        log = MetricsFile(self.run.metrics, start, self.trackers) if first else None
        stream = iter(self.batches)
        model: nn.Module = learner
        phase, done, metrics = "", start, dict[str, float]()

        shown = progress("training", last, start) if first else nullcontext(_quietly)
        with shown as advance, StopSignal() as stop, closing(stream):
            for step in range(start, last):
                if selection.exhausted:
                    break
                # Phase and rate follow from the step alone, so a resumed run is where it was.
                if self.strategy.phase(step, total) != phase:
                    phase = self.strategy.phase(step, total)
                    model = self._enter_phase(learner, step, total)
                    if log and (step == 0 or self.strategy.phase(step - 1, total) != phase):
                        log.write(step=step, phase=phase, event="phase", **self._hashes())
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * schedule.factor(step)

                loss, figures, heard = self._accumulate(model, stream, step)
                # What all processes must take the same way: the loss, and whether one of them was asked to stop.
                loss, heard, asked = devices.summed(accelerator, loss, heard, float(stop.asked))
                loss, seconds, done = loss / accelerator.num_processes, seconds + heard, step + 1
                norm = accelerator.clip_grad_norm_(learner.parameters(), float(options["clip"]))
                # Under float16 the scaler itself skips a step whose gradients overflow, and lowers its scale.
                overflow = accelerator.scaler is None and not bool(torch.isfinite(torch.as_tensor(norm)))
                if np.isfinite(loss) and not overflow:
                    try:
                        optimizer_handle.step()
                    except RuntimeError as error:
                        raise memory.explained(error, f"at step {done}", options, None) from error
                    guard.good()
                    moved += phase != HEAD_PHASE
                    if average is not None:
                        average.update()
                else:
                    guard.bad(done, loss)
                    if accelerator.scaler is not None:  # it was told to unscale, and expects to be told of the outcome
                        accelerator.scaler.update()
                optimizer_handle.zero_grad(set_to_none=True)

                if done % int(options["log_every"]) == 0 or done == last:
                    figures = means(devices.gathered([figures]))
                    if log:
                        log.write(
                            step=done,
                            phase=phase,
                            lr=optimizer.param_groups[-1]["lr"],
                            loss=loss,
                            **figures,
                            grad_norm=float(norm),
                            seconds_of_audio=round(seconds, 2),
                            **({"skipped_steps": guard.total} if guard.total else {}),
                        )
                advance(done, f"{phase} loss {loss:.3f}")
                better = False
                if self.dev is not None and (done % int(options["eval_every"]) == 0 or done == last):
                    with average.applied() if average is not None else nullcontext():
                        metrics = evaluate(accelerator, learner, self.dev, self.batches.workers, self.seed, options)
                    sound = moved > 0 and not guard.in_row
                    better = sound and selection.consider(done, phase, metrics) and bool(options["keep_best"])
                    if log:
                        log.write(step=done, phase=phase, **{f"dev_{key}": value for key, value in metrics.items()})
                        say(f"step {done}: " + ", ".join(f"dev {key} {value:.2f}" for key, value in metrics.items()))
                ends = done == last or selection.exhausted
                due = guard.saves(done % int(options["checkpoint_every"]) == 0)
                if first and (due or better or ends or asked):
                    figures_kept = {"seconds": seconds, "moved": moved, **guard.state()}
                    self._save(done, learner, average, optimizer, selection, figures_kept)
                if asked and not ends:
                    where = f"the same command goes on from there, in {self.run.folder}"
                    raise Interrupted(f"interrupted after step {done}", where)

        if self._frozen_hash() != frozen_hash:
            raise SpeechFTError(
                "a frozen part of the upstream has changed", "this is a fault of speechft: please report it"
            )
        guard.tell(done)
        if not moved and guard.total and self.strategy.phase(done - 1, total) != HEAD_PHASE:
            raise SpeechFTError(
                "every step after the unfreeze was skipped, so the upstream is still the pre-trained one",
                "lower trainer.lr, or look at the data and the task's loss",
            )
        chosen = self._choose(done, learner, average, selection)
        if log:
            ended = {"finetuned_step": chosen, "best_step": selection.step, "early": done < last,
                     "skipped_steps": guard.total}  # fmt: skip
            log.write(step=done, phase=self.strategy.phase(done - 1, total), event="end", **ended, **self._hashes())
            log.close()
        return Outcome(done, chosen, metrics)

    def _enter_phase(self, learner: Learner, step: int, total: int) -> nn.Module:
        self.strategy.enter(learner.upstream, learner.task, step, total)
        return devices.sharing(self.accelerator, learner)

    def _accumulate(
        self, model: nn.Module, stream: Iterator[Batch], step: int
    ) -> tuple[float, dict[str, float], float]:
        """Gradients of one optimiser step; returns the mean loss, figures to log, and the seconds of audio heard."""
        count, losses, seconds, figures = int(self.options["accumulate"]), [], 0.0, []
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for part in range(count):
            batch = next(stream).to(self.accelerator.device)
            # The random state follows from the step too (dropout, masks), so no generator state needs saving; and from
            # the batch's place in the step, so that two processes draw for two batches what one would.
            seed_all(self.seed, step, part * world + rank)
            # Gradients travel once a step, with the last batch.
            with nullcontext() if part == count - 1 else self.accelerator.no_sync(model):
                try:
                    with self.accelerator.autocast():
                        loss, own = model(batch)
                    self.accelerator.backward(loss / count)
                except RuntimeError as error:
                    raise memory.explained(error, f"at step {step + 1}", self.options, batch) from error
            losses.append(loss.detach())
            figures.append(own)
            seconds += batch.seconds
        return float(torch.stack(losses).double().mean()), means(figures), seconds

    def _save(
        self, step: int, learner: Learner, average: Average | None, optimizer: torch.optim.Optimizer,
        selection: Selection, figures: Mapping[str, float],
    ) -> None:  # fmt: skip
        """Everything a resume needs. It is the same for every process, so the first alone writes."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        readable = {
            **figures,
            "data": self.batches.state(),
            "processes": self.accelerator.num_processes,
            "best": selection.state(),
            "seed": self.seed,
            "config_sha256": self.config_hash,
            "corpora": self.corpora,
            "task": self.task.settings(),
        }
        checkpoint_files.save(
            self.run.checkpoints,
            step,
            learner,
            average,
            {"optimizer": optimizer.state_dict(), "scaler": scaler},
            readable,
            int(self.options["keep"]),
            selection.step if self.options["keep_best"] else None,
        )

    def _choose(self, done: int, learner: Learner, average: Average | None, selection: Selection) -> int:
        """Give the learner the weights that become `finetuned/`; returns the step they are of."""
        if self.options["finetuned"] == "best" and selection.step != done:
            if selection.step is None:
                raise SpeechFTError(
                    f"no evaluation after the unfreeze gave a finite {self.task.metric}, so none is the best",
                    "train longer, lower trainer.eval_every, or take the last: trainer.finetuned=last",
                )
            done = selection.step
            checkpoint_files.load_weights(checkpoint_files.of_step(self.run.checkpoints, done), learner, average)
        if average is not None:
            average.exchange()
        return done

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


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        steps: done in all.
        chosen: the step whose weights the upstream has.
        metrics: of the last evaluation.
    """

    steps: int
    chosen: int
    metrics: dict[str, float]


def _hash(parameters: list[nn.Parameter]) -> str:
    return weights_sha256({str(index): parameter for index, parameter in enumerate(parameters)})


def _quietly(done: int, note: str) -> None:
    del done, note
