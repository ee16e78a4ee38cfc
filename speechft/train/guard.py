"""Steps whose loss or gradient is not finite: skipped, counted, and too many in a row end the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.console import say
from speechft.errors import SpeechFTError


class NanGuard:
    """Counts what the loop skips.

    Args:
        patience: so many in a row end the run.
        loud: whether this process tells of them.

    Attributes:
        in_row: skipped steps since the last good one.
        total: of the whole run.
        owed: a checkpoint was due at a step that was skipped, and has not been written since.
    """

    def __init__(self, patience: int, loud: bool) -> None:
        self._patience, self._loud = patience, loud
        self.in_row = self.total = 0
        self.owed = False

    def good(self) -> None:
        """The step was made."""
        self.in_row = 0

    def bad(self, step: int, loss: float) -> None:
        """Step number `step` was skipped.

        Raises:
            SpeechFTError: once too often.
        """
        self.in_row, self.total = self.in_row + 1, self.total + 1
        if self._loud:
            say(f"step {step}: the loss or its gradient is not finite ({loss}); step skipped ({self.in_row} in a row)")
        if self.in_row >= self._patience:
            raise SpeechFTError(
                f"{self.in_row} steps in a row gave a non-finite loss",
                "lower trainer.lr, or use trainer.precision=no; allow_changed_config=true then goes on from the last "
                "checkpoint (remove those whose weights have diverged already)",
            )

    def saves(self, due: bool) -> bool:
        """Whether a checkpoint that may be due is written now: never behind a skipped step, as older weights may be
        sound still, but then at the next good one."""
        wanted = due or self.owed
        self.owed = wanted and bool(self.in_row)
        return wanted and not self.in_row

    def tell(self, steps: int) -> None:
        """Of how many steps nothing came, at the end."""
        if self.total and self._loud:
            say(f"{self.total} of {steps} steps were skipped, for their loss or gradient was not finite")

    def state(self) -> dict[str, int]:
        return {"skipped": self.in_row, "skipped_steps": self.total}

    def restore(self, state: Mapping[str, Any], overruled: bool) -> None:
        """Args: overruled: the configuration was changed on purpose, so what is to come may be sound again."""
        self.in_row = 0 if overruled else int(state["skipped"])
        self.total = int(state.get("skipped_steps", 0))
