"""Where figures go besides `metrics.jsonl`: TensorBoard, Weights & Biases."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from speechft.errors import MissingExtraError, UsageError
from speechft.files import write_text
from speechft.runs import Run

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Tracker(Protocol):
    """A place for figures. `metrics.jsonl` is the truth: a resumed run begins by showing what is kept of it."""

    def begin(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """The lines of the steps that are done; others that were shown before are void."""

    def add(self, line: Mapping[str, Any]) -> None:
        """A new line."""

    def end(self) -> None:
        """Nothing more will come."""


def check_trackers(names: Sequence[str]) -> None:
    """Find out early what cannot be had.

    Raises:
        UsageError: an unknown name.
        MissingExtraError: a package that is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise UsageError(f"unknown tracker {name!r}", f"known: {', '.join(PACKAGES)}; metrics.jsonl is always")
        if find_spec(PACKAGES[name]) is None:
            raise MissingExtraError(PACKAGES[name], "trackers", f"trainer.trackers=[{name}]")


def build_trackers(names: Sequence[str], run: Run, settings: Mapping[str, Any]) -> list[Tracker]:
    """The trackers of a run, checked before."""
    kinds: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(run),
        "wandb": lambda: WeightsAndBiases(run, settings),
    }
    return [kinds[name]() for name in names]


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    """What can be drawn: numbers, without the step they belong to."""
    return {
        key: float(value)
        for key, value in line.items()
        if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


class TensorBoard:
    """`tensorboard/` in the run's folder. A resumed run writes it anew from `metrics.jsonl`: no step is there twice."""

    def __init__(self, run: Run) -> None:
        self._folder = run.folder / "tensorboard"

    def begin(self, lines: Iterable[Mapping[str, Any]]) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer = SummaryWriter(str(self._folder))
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        for key, value in _figures(line).items():
            self._writer.add_scalar(key, value, int(line["step"]))

    def end(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `speechft`, or of `$WANDB_PROJECT`. A resumed run goes on in the same one, which takes no
    step twice: what it has already is what would come again."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        self._run, self._settings = run, dict(settings)

    def begin(self, lines: Iterable[Mapping[str, Any]]) -> None:
        import os

        import wandb

        del lines
        name = self._run.folder / "wandb-id"
        if not name.is_file():
            write_text(name, uuid.uuid4().hex[:12])
        self._writer = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "speechft"), id=name.read_text(encoding="utf-8").strip(),
            name=self._run.folder.name, config=self._settings, dir=str(self._run.folder), resume="allow",
        )  # fmt: skip

    def add(self, line: Mapping[str, Any]) -> None:
        self._writer.log(_figures(line), step=int(line["step"]))

    def end(self) -> None:
        self._writer.finish()
