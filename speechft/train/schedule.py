"""The learning rate as a pure function of the step (method.md step 1; the paper, section III-A)."""

from __future__ import annotations

from dataclasses import dataclass

from speechft.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, a plateau, linear decay to 0.

    Attributes:
        total: optimiser steps.
        warmup: share of the steps spent rising.
        hold: share of the steps after which the decay begins, counted from the start (0.5: hold until half-way).
    """

    total: int
    warmup: float = 0.1
    hold: float = 0.5

    def __post_init__(self) -> None:
        if self.total < 1:
            raise UsageError(f"trainer.steps is {self.total}", "a run has at least one step")
        if not 0.0 <= self.warmup <= self.hold <= 1.0:
            raise UsageError(
                f"schedule: warmup {self.warmup}, hold {self.hold}", "they are shares with 0 <= warmup <= hold <= 1"
            )

    def factor(self, step: int) -> float:
        """The share of the peak rate at step `step` (from 0): the last warm-up step is at the peak, and the rate would
        reach 0 at step `total`."""
        rising, falling = round(self.warmup * self.total), round(self.hold * self.total)
        if step < rising:
            return (step + 1) / rising
        if step < falling or falling >= self.total:
            return 1.0
        return (self.total - step) / (self.total - falling)
