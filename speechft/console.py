"""What a person sees while work goes on: everything here goes to stderr; results go to stdout elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int, str], None]
"""Called with the amount done so far and a short note."""


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Advance]:
    """A progress bar on a terminal; elsewhere (a log file, a Slurm job) a line every half minute.

    Args:
        title: what is being done.
        total: how much there is to do, in any unit.
        start: how much of it was done before.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   TextColumn("{task.fields[note]}")]  # fmt: skip
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)
        return
    began = last = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 30:
            last = now
            left = (now - began) * (total - done) / max(1, done - start)
            say(f"{title}: {done}/{total}, about {left:.0f} s left {note}".rstrip())

    yield advance
