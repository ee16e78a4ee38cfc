"""What a person sees while work goes on: everything here goes to stderr; results go to stdout elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

Advance = Callable[[int, str], None]
"""Called with the amount done so far and a short note."""

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Messages and counters: bars on a terminal, a line every half minute elsewhere (a log file, a Slurm job).

    It keeps the stream it was made with, so it is heard while s3prl is silenced. As a context manager it leaves the
    terminal clean, whatever happens inside.

    Args:
        stream: stderr unless given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self._display: Any = None  # rich's, while a bar is on a terminal

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._display is not None:
            self._display.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def bar(self, label: str, start: int = 0) -> Callable[..., None]:
        """A counter: call it with how much is done, how much there is, and perhaps a short note.

        Args:
            label: what is being done.
            start: how much of it was done before.
        """
        return self._drawn(label, start) if self.stream.isatty() else self._told(label, start)

    def _told(self, label: str, start: int) -> Callable[..., None]:
        began = last = time.monotonic()

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                left = (now - began) / max(done - start, 1) * (total - done)
                self.say(f"{label}: {done}/{total}, about {duration(left)} left {note}".rstrip())

        return show

    def _drawn(self, label: str, start: int) -> Callable[..., None]:
        task: Any = None

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal task
            if task is None:
                if done >= total:
                    return
                task = self._open().add_task(label, total=total, completed=start, note=note)
            if self._display is None:
                return
            self._display.update(task, completed=done, total=total, note=note)
            if done >= total:
                self._display.remove_task(task)
                task = None
                if not self._display.tasks:
                    self.close()

        return show

    def _open(self) -> Any:
        if self._display is None:
            from rich import progress
            from rich.console import Console

            columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
                       progress.TimeRemainingColumn(),
                       progress.TextColumn("{task.fields[note]}", markup=False)]  # fmt: skip
            console = Console(file=self.stream)
            self._display = progress.Progress(
                *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._display.start()
        return self._display

    def close(self) -> None:
        """Take the bars off the terminal."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_current: list[Progress] = []


def say(text: str) -> None:
    """One line on stderr, above the bar if there is one."""
    (_current[-1] if _current else Progress()).say(text)


_said: set[str] = set()


def say_once(text: str) -> None:
    """As `say`, but only the first time, and of several processes only in the first."""
    if text in _said or os.environ.get("RANK", "0") != "0":
        return
    _said.add(text)
    say(text)


@contextlib.contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Advance]:
    """A single counter on stderr.

    Args:
        title: what is being done.
        total: how much there is to do, in any unit.
        start: how much of it was done before.
    """
    with Progress() as display:
        show = display.bar(title, start)
        _current.append(display)
        try:
            yield lambda done, note: show(done, total, note)
        finally:
            _current.remove(display)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the messages of a step that is taken many times; a counter inside is shown, and speaks again."""
    quiet = Progress(io.StringIO())
    _current.append(quiet)
    try:
        yield
    finally:
        _current.remove(quiet)


def duration(seconds: float) -> str:
    """Seconds for people: `2 h 05 min`, `3 min 20 s`, `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
