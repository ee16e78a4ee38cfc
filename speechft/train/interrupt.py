"""Being asked to stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopSignal:
    """Ctrl-C or a scheduler's SIGTERM finishes the step, writes a checkpoint, and stops; a second one stops at once.

    Attributes:
        asked: whether this process has been asked.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: a notebook's or a test's business
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
