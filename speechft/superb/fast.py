"""`--engine fast`: s3prl's expert and layer weights, trained on stored features.

The loop is `Runner.train` of s3prl/downstream/runner.py with one difference: a batch's waveforms, upstream and weighted
sum are replaced by a look-up of stored features and the same weighted sum as one contraction. Which items form a batch,
and in which order, is drawn by the expert's own loader from the same random numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechft.superb import state as saved
from speechft.superb.batches import FeatureSplit, weigh
from speechft.superb.records import Scores, diverged, layer_weights, seed_all
from speechft.superb.tasks.base import Task

# Utterances smaller than this make batches whose every operation is shorter than waking the other threads takes: one
# thread was 3 to 10 times faster on two busy cores. (Not measured at run time: the choice changes the last bits.)
_ONE_THREAD_BYTES = 4 << 20


@dataclass
class Outcome:
    """What an evaluation ends with.

    Attributes:
        metrics: of the test set, as the expert logs them.
        dev: of the dev set (`Task.selected_on`) at the best step, with `step`; empty if no score was ever a best one.
        records: the expert's records of the test set.
        weights: the learned layer weights.
        steps: optimizer steps taken.
    """

    metrics: dict[str, float]
    dev: dict[str, float]
    records: dict[str, list[Any]]
    weights: list[float]
    steps: int


@dataclass
class FastRun:
    """One task, one upstream.

    Args:
        task: what is evaluated.
        config: s3prl's configuration (`Task.config`).
        featurizer, expert: s3prl's modules, freshly initialised.
        splits: `Task.splits`.
        seed: every evaluation is seeded with it, as s3prl does.
        device: where featurizer and expert are.
        state_file: where an interrupted run is kept, None for nowhere.
        fingerprint: a state of another configuration is not taken up.
        progress: called with steps done and in all.
        on_loss: called with step and loss of every micro-batch (tests).
        data: hash of all splits' data identities.
    """

    task: Task
    config: Mapping[str, Any]
    featurizer: Any
    expert: Any
    splits: Mapping[str, FeatureSplit]
    seed: int
    device: torch.device
    state_file: Path | None = None
    fingerprint: str = ""
    progress: Callable[[int, int], None] = lambda done, total: None
    on_loss: Callable[[int, float], None] | None = None
    data: str = ""

    step: int = 0
    epoch: int = 0
    micro_steps: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    dev: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules: list[nn.Module] = [self.featurizer, self.expert]
        self.parameters = [parameter for module in self.modules for parameter in module.parameters()]

    def run(self) -> Outcome:
        """Train, then test."""
        features = self.splits["train"].features
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and features.nbytes / len(features) < _ONE_THREAD_BYTES:
            torch.set_num_threads(1)
        try:
            self.train()
            return self.finish()
        finally:
            torch.set_num_threads(threads)

    def train(self) -> None:
        """`Runner.train`, from the first step or from where the state file stopped."""
        from s3prl.optimizers import get_optimizer

        runner = self.config["runner"]
        total, accumulate = runner["total_steps"], runner["gradient_accumulate_steps"]
        for module in self.modules:
            module.train()
        self.optimizer = get_optimizer(self.modules, total, self.config["optimizer"])
        scores = Scores(self.task.name)
        records: dict[str, list[Any]] = defaultdict(list)
        resumed = self._resume(records)
        train = self.splits["train"]
        while self.step < total:
            epoch_start = saved.random_state()
            if resumed:
                epoch_start = resumed["epoch_start"]
                saved.set_random_state(epoch_start)
            batches = enumerate(train.draw())
            if resumed:  # draw what was drawn, without looking it up
                for _ in range(resumed["batches"]):
                    next(batches)
                saved.set_random_state(resumed["now"])
                resumed = None
            for number, indices in batches:
                if self.step >= total:
                    break
                step = self.step + 1
                loss = self._forward("train", train, indices, records)
                if self.on_loss is not None:
                    self.on_loss(step, float(loss.detach()))
                (loss / accumulate).backward()
                self.micro_steps += 1
                if self.micro_steps % accumulate:
                    continue
                norm = nn.utils.clip_grad_norm_(self.parameters, runner["gradient_clipping"])
                if not math.isnan(norm):
                    self.optimizer.step()
                elif math.isnan(float(loss.detach())):
                    raise diverged(self.task.name, step)
                self.optimizer.zero_grad()
                if step % runner["log_step"] == 0:
                    self._log("train", records, scores, step)
                    records.clear()
                if step % runner["eval_step"] == 0:
                    self._dev(step)
                self.step = step
                if step % runner["eval_step"] == 0:
                    self._save(epoch_start, number + 1, records)
                self.progress(step, total)
            self.epoch += 1

    def _forward(self, name: str, split: FeatureSplit, indices: Sequence[int], records: dict[str, list[Any]]) -> Tensor:
        rows, counts, others = split.look_up(indices)
        loss = self.expert(name, weigh(self.featurizer, rows, counts), *others, records=records)
        assert isinstance(loss, Tensor)
        return loss

    def _log(self, name: str, records: dict[str, list[Any]], scores: Scores, step: int) -> list[str]:
        names = self.expert.log_records(
            name, records=records, logger=scores, global_step=step, batch_ids=[], total_batch_num=len(self.splits[name])
        )
        return list(names or [])

    def evaluate(self, name: str, step: int = 0) -> tuple[dict[str, float], dict[str, list[Any]], list[str]]:
        """`Runner.evaluate`: metrics of a split, its records, and the names under which s3prl would save."""
        seed_all(self.seed)
        for module in self.modules:
            module.eval()
        split, scores = self.splits[name], Scores(self.task.name)
        records: dict[str, list[Any]] = defaultdict(list)
        with torch.no_grad():
            for indices in split.draw():
                self._forward(name, split, indices, records)
        names = self._log(name, records, scores, step)
        for module in self.modules:
            module.train()
        return self.task.metrics(scores, name), records, names

    def _dev(self, step: int) -> None:
        before = saved.random_state()
        metrics, _, names = self.evaluate(self.task.selected_on, step)
        if self.task.selected_on == "test":  # s3prl tests the states it kept after training, which goes on unseeded
            saved.set_random_state(before)
        if self.task.is_best(names, metrics, self.dev):
            self.best = {
                "featurizer": saved.on_cpu(self.featurizer.state_dict()),
                "expert": saved.on_cpu(self.expert.state_dict()),
            }
            self.dev = {**metrics, "step": step}

    def finish(self) -> Outcome:
        """The test set with the best dev state (the last one if no dev score was a best one, as with accuracy 0)."""
        if self.best:
            self.featurizer.load_state_dict(self.best["featurizer"])
            self.expert.load_state_dict(self.best["expert"])
        metrics, records, _ = self.evaluate("test", self.step)
        metrics = self.task.final(self.expert, metrics, records)
        return Outcome(metrics, self.dev, dict(records), layer_weights(self.featurizer), self.step)

    # ---------------------------------------------------------------- an interrupted run

    def _save(self, epoch_start: dict[str, Any], batches: int, records: Mapping[str, list[Any]]) -> None:
        if self.state_file is None:
            return
        content = {
            "fingerprint": self.fingerprint, "step": self.step, "epoch": self.epoch, "micro_steps": self.micro_steps,
            "batches": batches, "epoch_start": epoch_start, "now": saved.random_state(),
            "featurizer": self.featurizer.state_dict(), "expert": self.expert.state_dict(),
            "optimizer": self.optimizer.state_dict(), "best": self.best, "dev": self.dev,
            "records": saved.plain(dict(records)),
        }  # fmt: skip
        saved.write(self.state_file, content)

    def _resume(self, records: dict[str, list[Any]]) -> dict[str, Any] | None:
        content = saved.read(self.state_file, self.device) if self.state_file is not None else None
        if content is None or content["fingerprint"] != self.fingerprint:
            return None
        self.step, self.epoch, self.micro_steps = content["step"], content["epoch"], content["micro_steps"]
        self.best, self.dev = content["best"], content["dev"]
        self.featurizer.load_state_dict(content["featurizer"])
        self.expert.load_state_dict(content["expert"])
        self.optimizer.load_state_dict(content["optimizer"])
        records.update(content["records"])
        return content
