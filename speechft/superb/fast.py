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
from speechft.superb.extract import Streamed
from speechft.superb.heads import Head, choose, each, make_heads
from speechft.superb.records import Diverged, Scores, diverged, layer_weights, seed_all
from speechft.superb.specaug import augmented
from speechft.superb.tasks.base import Task

# Utterances smaller than this make batches whose every operation is shorter than waking the other threads takes: one
# thread was 3 to 10 times faster on two busy cores. (Not measured at run time: the choice changes the last bits.)
_ONE_THREAD_BYTES = 4 << 20


@dataclass
class Outcome:
    """What an evaluation ends with.

    Attributes:
        metrics: of the test set, as the expert logs them, but fractions (`Task.metrics`).
        dev: of the dev set (`Task.selected_on`) at the best step, with `step`; empty if no score was ever a best one.
        records: the expert's records of the test set.
        weights: the learned layer weights.
        steps: optimizer steps taken.
        lr: the learning rate; of several, the best on dev.
        search: of several learning rates, each one's `lr` and `dev` metrics, and why it was given up if it was.
        streamed: splits whose features were not stored but computed whenever they were asked for.
    """

    metrics: dict[str, float]
    dev: dict[str, float]
    records: dict[str, list[Any]]
    weights: list[float]
    steps: int
    lr: float | None = None
    search: list[dict[str, Any]] = field(default_factory=list)
    streamed: list[str] = field(default_factory=list)


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
        rates: learning rates; empty for the configuration's. All heads see the same batches, looked up once, and
            each ends as it would alone.
        on_loss: called with step and loss of every micro-batch of every head (tests).
        data: hash of all splits' data identities.
    """

    task: Task
    config: Mapping[str, Any]
    featurizer: Any
    expert: Any
    splits: Mapping[str, FeatureSplit]
    seed: int
    device: torch.device
    rates: Sequence[float] = ()
    state_file: Path | None = None
    fingerprint: str = ""
    progress: Callable[[int, int], None] = lambda done, total: None
    on_loss: Callable[[int, float], None] | None = None
    data: str = ""

    step: int = 0
    epoch: int = 0
    micro_steps: int = 0

    def __post_init__(self) -> None:
        self.heads: list[Head] = []
        self.specaug: Any = None
        self.waits = self.device.type == "cpu"  # for a norm at every step, which on a GPU takes a synchronisation

    def run(self) -> Outcome:
        """Train, then test."""
        threads = torch.get_num_threads()
        self.few_threads()
        try:
            self.train()
            return self.finish()
        finally:
            torch.set_num_threads(threads)

    def few_threads(self) -> None:
        """Leave torch one thread where more would only wait for one another."""
        features = self.splits["train"].features
        if self.device.type == "cpu" and features.nbytes / len(features) < _ONE_THREAD_BYTES:
            torch.set_num_threads(1)

    def train(self) -> None:
        """`Runner.train`, from the first step or from where the state file stopped."""
        from s3prl.downstream.specaug import SpecAug

        runner, optimizer = self.config["runner"], self.config["optimizer"]
        total, accumulate = runner["total_steps"], runner["gradient_accumulate_steps"]
        rates = self.rates or [float(optimizer["lr"])]
        self.heads = make_heads(rates, self.featurizer, self.expert, optimizer, total)
        for head in self.heads:
            head.mode(train=True)
        self.specaug = SpecAug(**self.config["specaug"]) if self.config.get("specaug") else None
        resumed = self._resume()
        train = self.splits["train"]
        while self.step < total and self._live():
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
                if self.step >= total or not self._live():
                    break
                step = self.step + 1
                self.micro_steps += 1
                update = self.micro_steps % accumulate == 0
                batch = train.look_up(indices)
                for head in each(self.heads):
                    loss = self._forward("train", head, batch, head.records)
                    head.heard(loss)
                    if self.on_loss is not None:
                        self.on_loss(step, float(loss.detach()))
                    (loss / accumulate).backward()
                    if update:
                        self._or_stop(head, self._update, loss, step)
                if not update:
                    continue
                if step % runner["eval_step"] == 0:
                    self._dev(step)
                self.step = step
                if step % runner["eval_step"] == 0:
                    self._save(epoch_start, number + 1)
                self.progress(step, total)
            self.epoch += 1

    def _live(self) -> list[Head]:
        return [head for head in self.heads if head.stopped is None]

    def _update(self, head: Head, loss: Tensor, step: int) -> None:
        runner = self.config["runner"]
        norm = nn.utils.clip_grad_norm_(head.parameters, runner["gradient_clipping"])
        # s3prl: no step where the norm is NaN. A GPU decides that itself, the host would have to wait for it.
        if head.fused and not self.waits:
            head.optimizer.found_inf = norm.isnan().float()  # type: ignore[attr-defined]
            head.optimizer.step()
        elif not math.isnan(float(norm)):
            head.optimizer.step()
        elif math.isnan(float(loss.detach())):
            raise diverged(self.task.name, step)
        head.optimizer.zero_grad()
        if step % runner["log_step"] == 0 or step % runner["eval_step"] == 0 or step == runner["total_steps"]:
            self._look_at_losses(head, step)

    def _look_at_losses(self, head: Head, step: int) -> None:
        """A NaN among the losses since the last time ends it, as it would in s3prl's log."""
        losses, head.losses = head.losses, None
        head.records.clear()
        if losses is not None and math.isnan(float(losses)):
            raise diverged(self.task.name, step)

    def _or_stop(self, head: Head, do: Callable[..., None], *args: Any) -> None:
        """One of several rates is given up when its loss is NaN."""
        try:
            do(head, *args)
        except Diverged as error:
            head.stopped = error.what
            head.optimizer.zero_grad()
            if len(self.heads) == 1:
                raise

    def _forward(
        self, name: str, head: Head, batch: Any, records: dict[str, list[Any]], place: int | None = None
    ) -> Tensor:
        """Args: place: of the batch in its set, which s3prl tells the expert when it evaluates."""
        rows, counts, others = batch
        summed = weigh(head.featurizer, rows)
        if name == "train":
            if self.specaug is not None:
                summed = augmented(self.specaug, summed, counts)
            short = self.task.train_loss(head.expert, summed, counts, others)
            if short is not None:
                return short
        more = {} if place is None else {"batch_id": place}
        loss = head.expert(self.task.expert_split(name), list(summed.split(counts)), *others, records=records, **more)
        assert isinstance(loss, Tensor)
        return loss

    def _log(self, name: str, head: Head, records: dict[str, list[Any]], scores: Scores, step: int) -> list[str]:
        names = head.expert.log_records(
            self.task.expert_split(name), records=records, logger=scores, global_step=step,
            batch_ids=[], total_batch_num=len(self.splits[name]),
        )  # fmt: skip
        return list(names or [])

    def evaluate(self, name: str, heads: Sequence[Head]) -> list[dict[str, list[Any]]]:
        """`Runner.evaluate` up to the scores: each head's records of a split."""
        seed_all(self.seed)
        split = self.splits[name]
        records: list[dict[str, list[Any]]] = [defaultdict(list) for _ in heads]
        for head in heads:
            head.mode(train=False)
        with torch.no_grad():
            for place, indices in enumerate(split.draw()):
                batch = split.look_up(indices)
                for number, head in enumerate(each(heads)):
                    self._forward(name, head, batch, records[number], place)
        for head in heads:
            head.mode(train=True)
        return records

    def _dev(self, step: int) -> None:
        live, split = self._live(), self.task.selected_on
        before = saved.random_state()
        for head, records in zip(live, self.evaluate(split, live), strict=True):
            self._or_stop(head, self._score_dev, records, step)
        if split == "test":  # s3prl tests the states it kept after training, which goes on unseeded
            saved.set_random_state(before)

    def _score_dev(self, head: Head, records: dict[str, list[Any]], step: int) -> None:
        scores, split = Scores(self.task.name), self.task.selected_on
        names = self._log(split, head, records, scores, step)
        metrics = self.task.metrics(scores, split)
        head.last = {**metrics, "step": step}
        if self.task.is_best(names, metrics, head.dev):
            head.keep(metrics, step)

    def finish(self) -> Outcome:
        """The test set with the best rate's best dev state (the last one if no dev score was a best one, as with
        accuracy 0)."""
        task = self.task
        head = choose(self.heads, task.name, task.dev_metric or task.metric, task.higher_better)
        head.to_best()
        (records,) = self.evaluate("test", [head])
        scores = Scores(task.name)
        self._log("test", head, records, scores, self.step)
        metrics = task.final(head.expert, task.metrics(scores, "test"), records)
        search = [
            {"lr": one.lr, "dev": one.score, **({"stopped": one.stopped} if one.stopped else {})} for one in self.heads
        ]
        streamed = [name for name, split in self.splits.items() if isinstance(split.features, Streamed)]
        return Outcome(
            metrics, head.score, dict(records), layer_weights(head.featurizer), self.step, head.lr,
            search if len(search) > 1 else [], streamed,
        )  # fmt: skip

    # ---------------------------------------------------------------- an interrupted run

    def _save(self, epoch_start: dict[str, Any], batches: int) -> None:
        if self.state_file is None:
            return
        content = {
            "fingerprint": self.fingerprint, "step": self.step, "epoch": self.epoch, "micro_steps": self.micro_steps,
            "batches": batches, "epoch_start": epoch_start, "now": saved.random_state(),
            "heads": [head.state() for head in self.heads],
        }  # fmt: skip
        saved.write(self.state_file, content)

    def _resume(self) -> dict[str, Any] | None:
        content = saved.read(self.state_file, self.device) if self.state_file is not None else None
        if content is None or content["fingerprint"] != self.fingerprint:
            return None
        self.step, self.epoch, self.micro_steps = content["step"], content["epoch"], content["micro_steps"]
        for head, state in zip(self.heads, content["heads"], strict=True):
            head.load(state)
        return content
