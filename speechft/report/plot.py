"""Plots: each task's score against α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft import figures
from speechft.report.columns import title as title_of

Curves = Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]
"""Task (or column) -> strategy (or run) -> α -> the seeds' scores in per cent."""

Intervals = Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]
"""The same, down to the two ends of each interval."""

_ACROSS = 4  # panels


def plot_alpha(curves: Curves, path: Path, title: str) -> Path:
    """Write `alpha_figure` as a `.png`, `.svg` or `.pdf` file, whole.

    Args:
        curves, title: see `alpha_figure`.
        path: the file.
    """
    figures.save(alpha_figure(curves, title), path.with_name(path.stem), [path.suffix.lstrip(".")])
    return path


def alpha_figure(curves: Curves, title: str = "", intervals: Intervals | None = None) -> Any:
    """A panel per task: the mean over seeds as a line, every seed as a point, the pre-trained score as a dotted line.

    Args:
        curves: see `Curves`; α = 0 is the pre-trained model.
        title: over all panels.
        intervals: drawn as bars where they are known.
    """
    pyplot = figures.pyplot()
    across = min(len(curves), _ACROSS)
    down = -(-len(curves) // across)
    size = (4 * across, 3.4 * down)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(curves) :]:
        panel.set_axis_off()
    for panel, (task, strategies) in zip(axes.flat, curves.items(), strict=False):
        for number, (strategy, points) in enumerate(strategies.items()):
            colour, marker, line = figures.STYLES[number % len(figures.STYLES)]
            alphas = sorted(points)
            means = [sum(points[alpha]) / len(points[alpha]) for alpha in alphas]
            panel.plot(alphas, means, linestyle=line, color=colour, marker=marker, markersize=5,
                       label=figures.plain(strategy))  # fmt: skip
            for alpha in alphas:
                panel.plot([alpha] * len(points[alpha]), points[alpha], marker, color=colour, markersize=3, alpha=0.5)
            known = (intervals or {}).get(task, {}).get(strategy, {})
            shift = 0.012 * (number - (len(strategies) - 1) / 2)  # bars of several strategies stand side by side
            for alpha, (low, high) in known.items():
                panel.plot([alpha + shift] * 2, [low, high], color=colour, linewidth=1.2, alpha=0.5)
        for base in {sum(points[0.0]) / len(points[0.0]) for points in strategies.values() if points.get(0.0)}:
            panel.axhline(base, color="0.5", linestyle=":", linewidth=1, label="pre-trained")
        panel.axvline(0.25, color="0.85", linewidth=1, zorder=0)
        panel.set(xlabel="α (weight of the fine-tuned side)", title=title_of(task))
    handles = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(figures.plain(title), fontsize=11)
    return figure
