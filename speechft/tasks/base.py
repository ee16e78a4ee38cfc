"""What a task is: a head on an upstream, labels from cuts, a loss, and a metric over a whole set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from speechft.data.loader import Batch
from speechft.errors import SpeechFTError
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet


class Task(nn.Module, ABC):
    """A head and everything about its labels. The parameters of this module are the head's, thrown away after stage 1.

    A task is built in two moves: `__init__(options)` checks the options, `prepare` sees the data and builds the head.
    """

    name: str
    metric: str
    higher_is_better: bool = False

    @abstractmethod
    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        """Build vocabularies and the head.

        Args:
            upstream: for its dimension and frame rate; not changed.
            train, dev: the cuts.
            folder: the run's folder, where vocabularies and targets may be kept.

        Raises:
            SpeechFTError: labels are missing or impossible.
        """

    def check(self, upstream: Upstream, cuts: Iterable[Any]) -> list[tuple[str, str]]:
        """Cuts whose labels are missing or cannot be learnt: their ids, and why. Nothing is prepared yet.

        Here: those for which the task's `label(cut)`, if it has one, raises.
        """
        del upstream
        label: Any = getattr(self, "label", None)
        found = []
        for cut in cuts if label else ():
            try:
                label(cut)
            except SpeechFTError as error:
                found.append((cut.id, error.what))
        return found

    @abstractmethod
    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """One training batch: the scalar loss to descend, and figures worth logging."""

    @abstractmethod
    def evaluate(self, upstream: Upstream, batches: Iterable[Batch]) -> dict[str, float]:
        """The metrics over a whole set, by their names; the caller has set `eval()` and switched gradients off."""

    def settings(self) -> dict[str, Any]:
        """What a later reader needs to use the head (vocabularies); stored in each checkpoint."""
        return {}
