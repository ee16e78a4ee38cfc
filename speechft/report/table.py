"""Tables in Markdown: a row per model, a column per task, mean and spread over seeds, difference to the first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechft.report.bootstrap import paired_interval
from speechft.report.collect import Score
from speechft.report.columns import title

Rows = Mapping[str, Mapping[str, Sequence[Score]]]
"""Model -> task -> one score per seed; the first model is what the others are compared with."""


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Every cell as numbers: mean, the seeds' values, and the difference to the first row with its interval."""
    base = next(iter(rows.values()))
    cells = []
    for model, tasks in rows.items():
        for task, scores in tasks.items():
            values = [score.value for score in scores]
            cell: dict[str, Any] = {
                "model": model, "task": task, "metric": scores[0].metric, "higher_better": scores[0].higher_better,
                "mean": sum(values) / len(values), "values": values, "seeds": [score.seed for score in scores],
                "test_utterances": len(scores[0].utterances or ()),
            }  # fmt: skip
            if tasks is not base:
                difference, low, high = paired_interval(list(base[task]), list(scores))
                cell["difference"] = {"mean": difference, "low": low, "high": high}
            cells.append(cell)
    return cells


def markdown(cells: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of `summarise`'s cells."""
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    found = {(cell["model"], cell["task"]): cell for cell in cells}
    lines = ["| | " + " | ".join(title(task) for task in tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for model in models:
        lines.append(f"| {model} | " + " | ".join(_cell(found[model, task]) for task in tasks) + " |")
    return "\n".join(lines) + "\n"


def _cell(cell: Mapping[str, Any]) -> str:
    spread = (max(cell["values"]) - min(cell["values"])) / 2
    text = f"{cell['mean']:.1f} ± {spread:.1f}"
    if "difference" in cell:
        difference = cell["difference"]
        text += f" ({difference['mean']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}])"
    return text
