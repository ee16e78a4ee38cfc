"""The examples of the pages in `docs/`, as the tests run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def block(page: str, language: str = "python", number: int = 0) -> str:
    """The text of a page's fenced block."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[number]


def commands(page: str, start: str = "speechft") -> list[list[str]]:
    """The words of a page's commands (indented lines) that begin so, without `speechft`."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith(f"    {start}")]
    return [shlex.split(line)[1:] for line in lines]
