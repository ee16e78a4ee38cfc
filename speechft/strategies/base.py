"""What a strategy says: which parts of the upstream train at a step. The loop asks, the strategy answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from speechft.errors import UsageError

HEAD_PHASE = "head"
"""Only the task head trains; the upstream is frozen as a whole."""
FULL_PHASE = "full"
"""The upstream trains too, except the parts that stay frozen."""


@dataclass(frozen=True)
class Strategy:
    """Freezing by phase. Everything follows from the step, so a resumed run is in the right phase.

    Attributes:
        name: `stable`, `regular`, or the user's own.
        freeze_fraction: share of the steps in which only the head trains.
        frozen_parts: parts of the upstream (`Upstream.parts()`) that never train: a name, or a prefix (`layers`).
    """

    name: str
    freeze_fraction: float = 0.0
    frozen_parts: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not 0.0 <= self.freeze_fraction < 1.0:
            raise UsageError(
                f"strategy.freeze_fraction is {self.freeze_fraction}", "it is a share: at least 0, below 1"
            )

    def frozen_steps(self, total: int) -> int:
        """How many steps at the beginning train the head alone."""
        return round(self.freeze_fraction * total)

    def phase(self, step: int, total: int) -> str:
        """The phase of step `step` (from 0) of `total`."""
        return HEAD_PHASE if step < self.frozen_steps(total) else FULL_PHASE

    def trainable_parts(self, parts: Iterable[str], step: int, total: int) -> set[str]:
        """Which of an upstream's parts train at a step.

        Raises:
            UsageError: a frozen part that the upstream does not have.
        """
        parts = list(parts)
        for frozen in self.frozen_parts:
            if not any(_covers(frozen, part) for part in parts) and frozen != "cnn":  # DeCoAR 2.0 has no CNN to freeze
                raise UsageError(f"this upstream has no part {frozen!r}", f"its parts: {', '.join(parts)}")
        if self.phase(step, total) == HEAD_PHASE:
            return set()
        return {part for part in parts if not any(_covers(frozen, part) for frozen in self.frozen_parts)}


def _covers(frozen: str, part: str) -> bool:
    return part == frozen or part.startswith(f"{frozen}.")
