"""Which checkpoint is the best on the dev set, and whether it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from speechft.strategies.base import HEAD_PHASE


class Selection:
    """Only evaluations after the unfreeze count: before it the upstream is still θ0, and to merge it would do nothing
    (the method's published code can choose such a checkpoint).

    Args:
        metric: the task's name of it.
        higher: whether more of it is better.
        patience: stop after so many evaluations in a row without a better one; None never does.

    Attributes:
        step, value: of the best evaluation; None while there is none.
        stale: evaluations since then (since the unfreeze, while there is none).
    """

    def __init__(self, metric: str, higher: bool, patience: int | None) -> None:
        self._metric, self._sign, self._patience = metric, 1.0 if higher else -1.0, patience
        self.step: int | None = None
        self.value: float | None = None
        self.stale = 0

    def consider(self, step: int, phase: str, metrics: Mapping[str, float]) -> bool:
        """Take note of an evaluation after `step` steps, the last of them in `phase`; whether it is the best yet."""
        if phase == HEAD_PHASE:
            return False
        value = float(metrics[self._metric])
        if math.isfinite(value) and (self.value is None or self._sign * value > self._sign * self.value):
            self.step, self.value, self.stale = step, value, 0
            return True
        self.stale += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._patience is not None and self.stale >= self._patience

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "value": self.value, "stale": self.stale}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.step, self.value, self.stale = state["step"], state["value"], int(state["stale"])
