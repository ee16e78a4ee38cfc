"""A progress that keeps what it is told."""

from __future__ import annotations

import io

from speechft.console import Progress


class Listener(Progress):
    """Messages, kept."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())

    @property
    def text(self) -> str:
        return self.stream.getvalue()
