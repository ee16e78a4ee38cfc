"""What a strategy adds to a task's loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from speechft.data.loader import Batch


class Penalty(ABC):
    """A term of the loss that knows θ0. It is no module: what it keeps is in no checkpoint, since a run that goes on
    loads θ0 again.

    Attributes:
        name: under which its value is logged.
    """

    name: str

    @abstractmethod
    def value(self, batch: Batch) -> Tensor | None:
        """The weighted term, a scalar, after the task's step on `batch`; None while the upstream is frozen."""


def penalised(
    loss: Tensor, figures: dict[str, float], penalties: Iterable[Penalty], batch: Batch
) -> tuple[Tensor, dict[str, float]]:
    """A task's loss with the penalties added, and its figures with theirs and the task's own loss.

    It belongs into the forward of the module that data-parallel training wraps, so that gradients are averaged.
    """
    task_loss = loss
    for penalty in penalties:
        value = penalty.value(batch)
        if value is not None:
            loss = loss + value
            figures = {**figures, "task_loss": float(task_loss.detach()), penalty.name: float(value.detach())}
    return loss, figures
