"""What is trained: upstream and head together."""

from __future__ import annotations

from torch import Tensor, nn

from speechft.data.loader import Batch
from speechft.strategies.penalty import Penalty, penalised
from speechft.tasks.base import Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.kept_cnn import KeptCnn


class Learner(nn.Module):
    """Upstream and head as one module, so that data-parallel wrapping sees both.

    Args:
        upstream, task: the two.
        kept: the memory of the upstream's CNN, told of every batch; None where nothing is kept.

    Attributes:
        penalties: what the strategy adds to the task's loss.
    """

    def __init__(self, upstream: Upstream, task: Task, kept: KeptCnn | None = None) -> None:
        super().__init__()
        self.upstream, self.task, self._kept = upstream, task, kept
        self.penalties: list[Penalty] = []

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        if self._kept is not None:
            self._kept.expect(batch.waves, batch.digests)
        loss, figures = self.task.step(self.upstream, batch)
        return penalised(loss, figures, self.penalties, batch)
