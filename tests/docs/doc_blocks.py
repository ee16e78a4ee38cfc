"""What README.md, CONTRIBUTING.md, hubert_nano's card and docs/ hold: code blocks, what a comment before them says, and
code in sentences.

A comment right before a block says how it is tested:

    <!-- test: run -->             it runs, in the page's folder, after the page's earlier blocks
    <!-- test: run with NAME -->   the same, after the fixture NAME of doc_fixtures.py has put files there
    <!-- test: slow -->            it runs in the slow tests only
    <!-- test: no (WHY) -->        it is neither run nor checked

Without one, commands are checked (doc_commands.py), data are parsed, and Python must be tested by a file that names the
page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CARD = ROOT / "speechft" / "assets" / "hubert_nano" / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", CARD, *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(\s*)(```+|~~~+)\s*([\w+-]*)")
_MARK = re.compile(r"^\s*<!-- test: (run|slow|no)(?: with (\w+))?(?: \((.+)\))? -->$")
_LIST = re.compile(r"^\s*([-*]|\d+\.)\s")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: where it is.
        line: its number in the page.
        language: of the fence; `indented` where there is none.
        text: without fence and indentation.
        how: `run`, `slow`, `no`, or nothing.
        fixture: what must be there before it runs.
        why: of `no`.
    """

    page: Path
    line: int
    language: str
    text: str
    how: str | None = None
    fixture: str | None = None
    why: str | None = None

    @property
    def place(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    """`docs/data.md`."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    mark: tuple[str | None, ...] = (None, None, None)
    number, above, in_list = 0, "", False
    while number < len(lines):
        line = lines[number]
        fence = _FENCE.match(line)
        marked = _MARK.match(line)
        if marked:
            mark = marked.groups()
        elif "<!-- test:" in line:
            raise ValueError(f"{name(page)}:{number + 1}: {line.strip()} is not understood")
        elif fence:
            indent, ticks, language = fence.groups()
            end = next(
                place for place in range(number + 1, len(lines)) if lines[place].strip() == ticks
            )  # StopIteration: a fence that never ends
            body = [text.removeprefix(indent) for text in lines[number + 1 : end]]
            found.append(Block(page, number + 1, language, "\n".join(body) + "\n", *mark))
            mark, number = (None, None, None), end
        elif line.startswith("    ") and line.strip() and not above.strip() and not in_list:
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            body = [text.removeprefix("    ") for text in lines[number:end]]
            found.append(Block(page, number + 1, "indented", "\n".join(body).rstrip() + "\n", *mark))
            mark, number = (None, None, None), end - 1
        elif line.strip():
            mark = (None, None, None)
            in_list = bool(_LIST.match(line)) or (in_list and line.startswith(" "))
        above = lines[number]
        number += 1
    return found


def prose(page: Path) -> str:
    """The page without its blocks and comments; lines keep their numbers."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        count = block.text.count("\n")
        start = block.line - 1
        for place in range(start, start + count + (0 if block.language == "indented" else 2)):
            lines[place] = ""
    return re.sub(r"<!--.*?-->", "", "\n".join(lines), flags=re.DOTALL)


def spans(page: Path) -> Iterator[tuple[str, str]]:
    """Code inside sentences and tables, with its place. A span may go over the end of a line."""
    text = prose(page)
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        line = text.count("\n", 0, found.start()) + 1
        yield f"{name(page)}:{line}", " ".join(found.group(1).split())
