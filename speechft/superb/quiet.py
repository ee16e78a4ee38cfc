"""s3prl prints and draws progress bars on both streams; results of ours go to stdout. So its output goes to a file."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_UP = "\x1b[A"  # of a terminal: one line up


class _Log(io.TextIOBase):
    """A text stream that drops progress bars (they rewrite a line, so they begin with a carriage return), what moves
    from one to another, and the empty lines that they leave."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.begun = False  # whether the last line has no end yet

    def write(self, text: str, /) -> int:
        kept = text.replace(_UP, "")
        if kept and not kept.startswith("\r") and (self.begun or kept != "\n"):
            self.file.write(kept)
            self.begun = not kept.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self.file.flush()

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def quiet(log: str | Path) -> Iterator[None]:
    """Append to `log` what is printed to stdout or stderr inside; warnings of third parties too."""
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        stream = _Log(file)
        with (
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            warnings.catch_warnings(),
        ):
            yield
