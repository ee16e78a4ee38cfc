"""Progress on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_REDRAWS = 0.2


class Progress:
    """Messages and counters. It keeps the stream it was made with, so it is heard while s3prl is silenced.

    Args:
        stream: stderr unless given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.terminal = self.stream.isatty()
        self.width = 0

    def say(self, text: str) -> None:
        """A line of its own."""
        self._clear()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def bar(self, label: str) -> Callable[[int, int], None]:
        """A counter: call it with how much is done and how much there is."""
        began = last = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            between = _SECONDS_BETWEEN_REDRAWS if self.terminal else _SECONDS_BETWEEN_LINES
            if now - last < between and not (self.terminal and done >= total):
                return
            last = now
            left = (now - began) / max(done, 1) * (total - done)
            line = f"{label} {done}/{total}, {_duration(left)} left"
            if not self.terminal:
                self.say(line)
                return
            self._clear()
            if done < total:
                self.stream.write(line)
                self.width = len(line)
            self.stream.flush()

        return show

    def _clear(self) -> None:
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.width = 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
