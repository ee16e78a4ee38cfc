"""`report.html`: one file that needs nothing beside it, for a reader who was not there."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.analysis.table import about, table
from speechft.report.page import UNCHECKED, footnotes, how, reading, sources
from speechft.report.surroundings import differing

_SHOWN = 12  # letters of a hash


def html(report: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        report: `report.json`.
        pictures: what `drawings.draw` drew; they go into the page as data.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    def code(text: str) -> Markup:
        """Escaped, with what stands between backticks as code."""
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

    surroundings = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    surroundings.filters |= {"code": code, "data": _data, "linked": _linked}
    rows = report["rows"]
    return surroundings.get_template("page.html.j2").render(
        report=report, title=_title(rows), pictures=pictures, columns=report["columns"], rows=rows,
        compared=[row for row in rows if row["base"] is not None], with_score=bool(report["superb_s"]["columns"]),
        bases=list(dict.fromkeys(row["base"] for row in rows if row["base"] is not None)),
        several=any(cell["spread"] is not None for row in rows for cell in row["cells"].values()),
        findings=_findings(reading(report)), how=how(report), footnotes=footnotes(report), unchecked=UNCHECKED,
        sources=sources(report) if report["published"] else {},
        drift=[(*table(one), about(one), one["notes"]) for one in report["drift"]],
        differing=differing(report["runs"]), short=lambda text: str(text)[:_SHOWN],
    )  # fmt: skip


def _title(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [row["name"] for row in rows if row["pretrained"]]
    named = ["the pre-trained upstream" if name == "pre-trained" else name for name in names]  # the demo's row
    return f"What became of {' and '.join(named)}" if names else "SUPERB scores"


def _findings(sentences: Sequence[str]) -> dict[str, list[str]]:
    """`name: what was found.` -> what was found, and of which rows."""
    found: dict[str, list[str]] = {}
    for sentence in sentences:
        name, _, said = sentence.rstrip(".").partition(": ")
        found.setdefault(said, []).append(name)
    return found


def _data(svg: str) -> str:
    """An SVG as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _linked(text: str) -> Any:
    """A source, with its address as a link."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(https?://[^\s;)]+)", r'<a href="\1">\1</a>', str(escape(text))))
