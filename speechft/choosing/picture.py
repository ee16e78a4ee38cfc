"""A choice as a picture and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft import figures
from speechft.choosing.noise import LIKELY

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "0.45"  # Okabe and Ito's
_ACROSS = 3  # panels


def draw(choice: Mapping[str, Any], path: Path, name: str, formats: Sequence[str] = ("png",)) -> list[str]:
    """A panel per score over α, and with two scores the trade-off between them.

    Shapes tell what colours tell: filled points are on the front, hollow ones are not, the star is the chosen one.

    Args:
        choice: what `choose` returns.
        path: of the files, without the suffix; written whole.
        name: of the run, for the title.
        formats: of `figures.FORMATS`.

    Returns:
        The names of the files.
    """
    return figures.save(figure_of(choice, name), path, formats)


def figure_of(choice: Mapping[str, Any], name: str) -> Any:
    """The picture itself; the arguments are those of `draw`."""
    pyplot = figures.pyplot()
    objectives, rows = choice["objectives"], choice["candidates"]
    panels = len(objectives) + (len(objectives) == 2)
    across = min(panels, _ACROSS)
    down = -(-panels // across)
    size = (4.2 * across, 3.6 * down)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[panels:]:
        panel.set_axis_off()
    alphas = [row["alpha"] for row in rows]
    for panel, one in zip(axes.flat, objectives, strict=False):
        values = [row["scores"][one["name"]] for row in rows]
        panel.plot(alphas, values, "-", color=_BLUE, linewidth=1.5)
        intervals = [row.get("intervals", {}).get(one["name"]) for row in rows]
        if all(intervals):
            panel.fill_between(alphas, *zip(*intervals, strict=True), color=_BLUE, alpha=0.15, linewidth=0)
        _points(panel, choice, alphas, values)
        panel.axhline(values[alphas.index(0.0)], color=_GREY, linestyle=":", linewidth=1.2)
        panel.set(xlabel="α (weight of the fine-tuned side)", ylabel=_heading(one))
    if len(objectives) == 2:
        panel = axes.flat[2]
        xs, ys = ([row["scores"][one["name"]] for row in rows] for one in objectives)
        ends = sorted((x, y) for x, y, row in zip(xs, ys, rows, strict=True) if row["on_front"])
        panel.plot(*zip(*ends, strict=True), "--", color=_GREY, linewidth=1.2)
        _points(panel, choice, xs, ys)
        outward = [1 if one["higher_better"] else -1 for one in objectives]
        for x, y, row in zip(xs, ys, rows, strict=True):  # the front on its outer side, the others on their inner one
            right, up = (sign * (1 if row["on_front"] else -1) for sign in outward)
            panel.annotate(
                f"{row['alpha']:g}", (x, y), xytext=(5 * right, 6 * up), textcoords="offset points", fontsize=8,
                ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top",
            )  # fmt: skip
        panel.margins(0.1)
        panel.set(xlabel=_heading(objectives[0]), ylabel=_heading(objectives[1]), title="Pareto front (dashed)")
    axes[0][0].axhline(float("nan"), color=_GREY, linestyle=":", linewidth=1.2, label="pre-trained")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{figures.plain(name)}: α = {choice['chosen']:g} by {choice['rule']['name']}", fontsize=11)
    return figure


def _points(panel: Any, choice: Mapping[str, Any], xs: list[float], ys: list[float]) -> None:
    rows = choice["candidates"]
    for wanted, fill, label in ((True, _BLUE, "on the front"), (False, "white", "dominated")):
        places = [place for place, row in enumerate(rows) if row["on_front"] is wanted]
        if places:
            panel.plot(
                [xs[place] for place in places], [ys[place] for place in places], "o", color=_BLUE,
                markerfacecolor=fill, markersize=6, label=label,
            )  # fmt: skip
    place = next(place for place, row in enumerate(rows) if row["alpha"] == choice["chosen"])
    panel.plot([xs[place]], [ys[place]], "*", color=_ORANGE, markersize=15, label=f"chosen, α = {choice['chosen']:g}")


def table(choice: Mapping[str, Any]) -> list[str]:
    """The sweep in Markdown, a row per α, which one was chosen by what rule, what that means, and how sure it is."""
    head, rows = cells(choice)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return [*lines, "", *told(choice)]


def cells(choice: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of that table."""
    objectives, sure = choice["objectives"], choice.get("draws", 0) > 0
    head = ["α", *(_heading(one) for one in objectives), "front", *(["chosen in draws"] if sure else []), ""]
    rows = []
    for row in choice["candidates"]:
        notes = ["pre-trained"] * (row["alpha"] == 0) + ["chosen"] * (row["alpha"] == choice["chosen"])
        values = [_value(row, one) for one in objectives]
        share = [f"{100 * row['chosen_share']:.0f} %"] if sure else []
        rows.append([f"{row['alpha']:g}", *values, "yes" if row["on_front"] else "", *share, ", ".join(notes)])
    return head, rows


def told(choice: Mapping[str, Any]) -> list[str]:
    """The choice in sentences, for somebody who was not there."""
    lines = [f"alpha {choice['chosen']:g} by {choice['rule']['name']}: {choice['why']}."]
    if choice["why"].startswith("the knee"):
        lines.append("The knee of the front is where giving up a little of one score stops buying much of another.")
    reached = [
        f"{100 * share:.0f} % in {one['title']}"
        for one in choice["objectives"] if (share := choice.get("reached", {}).get(one["name"])) is not None
    ]  # fmt: skip
    if reached:
        lines.append(
            f"Between the worst (0 %) and the best (100 %) point of the front it lies at {', '.join(reached)}."
        )
    if choice.get("draws"):
        likely = [
            (row["chosen_share"], row["alpha"]) for row in choice["candidates"] if row["chosen_share"] >= LIKELY
        ]  # fmt: skip
        likely.sort(key=lambda one: (-one[0], one[1]))
        words = ", ".join(f"{alpha:g} in {100 * share:.0f} %" for share, alpha in likely)
        lines.append(
            f"In brackets: 95 % intervals over {choice['draws']} bootstrap draws of the dev utterances. On these draws "
            f"the rule chooses {words or 'no alpha in more than a few'}."
        )
        others = [f"{alpha:g}" for _, alpha in likely if alpha != choice["chosen"]]
        if others:
            lines.append(f"So this dev set does not tell {choice['chosen']:g} from {', '.join(others)}.")
        lines.append("Other seeds of the fine-tuning are not in this.")
    return lines


def _value(row: Mapping[str, Any], objective: Mapping[str, Any]) -> str:
    digits, ends = objective["digits"], row.get("intervals", {}).get(objective["name"])
    text = f"{row['scores'][objective['name']]:.{digits}f}"
    return text if ends is None else f"{text} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _heading(objective: Mapping[str, Any]) -> str:
    return f"{objective['title']} {'↑' if objective['higher_better'] else '↓'}"
