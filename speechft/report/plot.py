"""Plots: each task's score against α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from speechft.files import whole_file
from speechft.report.columns import title as title_of

Curves = Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]]
"""Task (or column) -> strategy (or run) -> α -> the seeds' scores in per cent."""

_STYLES = [
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", ":"),
    ("#cc79a7", "D", "-."),
]  # Okabe and Ito

_ACROSS = 4  # panels


def plot_alpha(curves: Curves, path: Path, title: str) -> Path:
    """A panel per task: the mean over seeds as a line, every seed as a point, the pre-trained score as a dotted line.

    Args:
        curves: see `Curves`; α = 0 is the pre-trained model.
        path: a `.png`, `.svg` or `.pdf` file, written whole.
        title: over all panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = min(len(curves), _ACROSS)
    down = -(-len(curves) // across)
    size = (4 * across, 3.4 * down)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(curves) :]:
        panel.set_axis_off()
    for panel, (task, strategies) in zip(axes.flat, curves.items(), strict=False):
        for (strategy, points), (colour, marker, line) in zip(strategies.items(), cycle(_STYLES), strict=False):
            alphas = sorted(points)
            means = [sum(points[alpha]) / len(points[alpha]) for alpha in alphas]
            panel.plot(alphas, means, line, color=colour, label=strategy, linewidth=1.8)
            for alpha in alphas:
                panel.plot([alpha] * len(points[alpha]), points[alpha], marker, color=colour, markersize=4, alpha=0.7)
        base = next((points[0.0] for points in strategies.values() if 0.0 in points), None)
        if base:
            panel.axhline(sum(base) / len(base), color="0.5", linestyle=":", linewidth=1, label="pre-trained")
        panel.axvline(0.25, color="0.85", linewidth=1, zorder=0)
        panel.set(xlabel="α (weight of the fine-tuned side)", title=title_of(task))
        panel.grid(alpha=0.25)
    handles = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    axes[0][0].legend(handles.values(), handles.keys(), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.lstrip("."))
    pyplot.close(figure)
    return path
