"""Several tasks at once on one upstream: each batch is one task's, and its head's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from speechft.data.joint import cuts_of, read_parts, task_of
from speechft.data.loader import Batch
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.base import Task
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet


class Joint(Task):
    """Joint training: the loss of a batch is its task's, times that task's weight.

    The paper's multitask scenario has it beside merging one upstream for each task. Which batches come, and how many of
    each task, is `data/joint.py`'s business. The best model is the one that is best at the first task, or where that
    has no dev set, at the first one that has.

    Args:
        tasks: see `data.joint.read_parts`.
    """

    def __init__(self, tasks: Mapping[str, Any]) -> None:
        super().__init__()
        from speechft.tasks.build import build_task

        parts = read_parts(tasks)
        if any("." in name for name in parts):
            raise UsageError("a name in task.tasks has a dot", "give it another one, and the task as `task`")
        for name, part in parts.items():
            if part.task.get("head_lr") is not None:
                raise UsageError(f"task.tasks.{name}.head_lr: all heads learn at one rate", "set task.head_lr")
        self.tasks = nn.ModuleDict({name: build_task(part.task) for name, part in parts.items()})
        self._weights = {name: part.weight for name, part in parts.items()}
        self.name = "+".join(parts)
        self._judge_by(next(iter(parts)))

    def _judge_by(self, name: str) -> None:
        self.metric, self.higher_is_better = f"{name}_{self._task(name).metric}", self._task(name).higher_is_better

    def _task(self, name: str) -> Task:
        task = self.tasks[name]
        assert isinstance(task, Task)
        return task

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        for name in self.tasks:
            own = cuts_of(train, name)
            if own is None:
                raise SpeechFTError(f"there is no training data for {name}", f"give task.tasks.{name}.data, or data")
            try:
                self._task(name).prepare(upstream, own, cuts_of(dev, name), folder / name)
            except SpeechFTError as error:
                raise type(error)(f"task {name}: {error.what}", error.mend) from error

        scored = [name for name in self.tasks if cuts_of(dev, name) is not None]
        if scored:
            self._judge_by(scored[0])

    def keep(self, folder: Path) -> None:
        for name in self.tasks:
            self._task(name).keep(folder / name)

    def check(self, upstream: Upstream, cuts: Iterable[Any]) -> list[tuple[str, ...]]:
        together = list(cuts)
        return [
            problem
            for name in self.tasks
            for problem in self._task(name).check(upstream, [cut for cut in together if task_of(cut) == name])
        ]

    def check_splits(self, train: Sequence[Any], dev: Sequence[Any]) -> list[tuple[str, str, str]]:
        found = []
        for name in self.tasks:
            own, heard = ([cut for cut in part if task_of(cut) == name] for part in (train, dev))
            if own:
                found += self._task(name).check_splits(own, heard)
        return found

    def describe(self, cuts: Sequence[Any]) -> list[str]:
        parts = {name: [cut for cut in cuts if task_of(cut) == name] for name in self.tasks}
        return [f"{name}: {line}" for name, own in parts.items() if own for line in self._task(name).describe(own)]

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        name = task_of(batch.cuts[0])
        loss, figures = self._task(name).step(upstream, batch)
        own = {f"{name}_{key}": value for key, value in figures.items()}
        return self._weights[name] * loss, {f"{name}_loss": float(loss.detach()), **own}

    def score(self, upstream: Upstream, batch: Batch) -> list[tuple[str, Any]]:
        """The tasks' own scores, each with its task's name."""
        found: list[tuple[str, Any]] = []
        for name in self.tasks:
            own = [place for place, cut in enumerate(batch.cuts) if task_of(cut) == name]
            if own:
                part = Batch([batch.waves[place] for place in own], [batch.cuts[place] for place in own])
                found += [(name, score) for score in self._task(name).score(upstream, part)]
        return found

    def summary(self, scores: Sequence[tuple[str, Any]]) -> dict[str, float]:
        """Every task's metrics, as `TASK_METRIC`."""
        found: dict[str, float] = {}
        for name in self.tasks:
            own = [score for task, score in scores if task == name]
            if own:
                found |= {f"{name}_{key}": value for key, value in self._task(name).summary(own).items()}
        return found

    def settings(self) -> dict[str, Any]:
        return {name: self._task(name).settings() for name in self.tasks}
