"""One look for all plots: colours that colour-blind readers tell apart, vector output, files written whole.

Colours are Okabe and Ito's, each with a marker and a line of its own, so that plots hold in black and white.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechft.errors import UsageError
from speechft.files import whole_file

FORMATS = ("png", "pdf", "svg")

STYLES = [
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", ":"),
    ("#cc79a7", "D", "-."),
    ("#e69f00", "v", (0, (5, 1))),
    ("#56b4e9", "P", (0, (3, 1, 1, 1))),
    ("#000000", "X", (0, (1, 1))),
]  # fmt: skip
"""Colour, marker, line of each series."""


def checked_formats(formats: Sequence[str]) -> list[str]:
    """Formats of plots, each once.

    Raises:
        UsageError: none, or one that is not known.
    """
    unknown = [one for one in formats if one not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"plots as {', '.join(unknown) or 'nothing'}", f"known: {', '.join(FORMATS)}")
    return list(dict.fromkeys(formats))


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files; in a notebook, which has it already, its own plots stay visible."""
    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("Agg")
    from matplotlib import pyplot as module

    matplotlib.rcParams.update({
        "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
        "lines.linewidth": 1.6, "pdf.fonttype": 42, "svg.hashsalt": "speechft",
    })  # fmt: skip
    return module


def save(figure: Any, path: Path, formats: Sequence[str] = ("png",)) -> list[str]:
    """Write a figure whole, once a format, and close it.

    Args:
        figure: matplotlib's.
        path: without the suffix.
        formats: of `FORMATS`.

    Returns:
        The names of the files.

    Raises:
        SpeechFTError: the disk is full or the folder cannot be written.
    """
    names = []
    for kind in formats:
        target = path.with_name(f"{path.name}.{kind}")
        with whole_file(target) as temporary:
            # no date: the same results give the same bytes
            metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            figure.savefig(temporary, dpi=160, format=kind, metadata=metadata)
            figure.set_layout_engine("none")  # the layout is found: it holds for the next format
        names.append(target.name)
    pyplot().close(figure)
    return names


def as_svg(figure: Any) -> str:
    """A figure as SVG text that needs no font: letters are outlines."""
    from io import StringIO

    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")
    return text.getvalue()


def plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter.

    What stands between two dollar signs would be a formula, and a series whose name begins with a line below would be
    missing from the legend.
    """
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def faded(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white: `share` 1 is the colour itself, 0 white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - share * (1 - value) for value in to_rgb(colour))
    return red, green, blue
