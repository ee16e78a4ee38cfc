"""The study's pictures: every probe against α, and features kept against the size of the update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechft import figures
from speechft.report.plot import plot_alpha
from speechft.study.plan import STRATEGIES, TITLES

if TYPE_CHECKING:
    from speechft.study.results import Study


def curves(study: Study, upstream: str, scenario: str, path: Path) -> Path:
    """A panel per probe, a curve per strategy over α, every seed a point."""
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    for probe in study.probes(upstream):
        if len(study.scores(upstream, scenario, "stable", 0.25, probe)) == 0:
            continue
        start = [score["value"] for score in study.pretrained(upstream, probe).values()]
        for strategy, alpha in study.rows(upstream, scenario):
            values = [score["value"] for score in study.scores(upstream, scenario, strategy, alpha, probe).values()]
            if values:
                title = TITLES[probe]
                panels.setdefault(title, {}).setdefault(strategy, {0.0: start})[alpha] = values
    return plot_alpha(panels, path, f"{upstream} fine-tuned on {scenario.upper()}")


def features(study: Study, upstream: str, scenario: str, path: Path) -> Path:
    """Linear CKA to the pre-trained features, mean over hidden states, against ‖τ‖ / ‖θ0‖; a point per model."""
    pyplot = figures.pyplot()
    figure, panel = pyplot.subplots(figsize=(5.5, 4), layout="constrained")
    for number, strategy in enumerate(STRATEGIES):
        colour, marker, _ = figures.STYLES[number % len(figures.STYLES)]
        rows = [row for row in study.rows(upstream, scenario) if row[0] == strategy]
        for index, row in enumerate(sorted(rows, key=lambda one: one[1])):
            models = study.at(upstream, scenario, row)
            moved = [100 * model["update"] for model in models]
            kept = [float(np.mean(model["cka"])) for model in models]
            panel.plot(moved, kept, marker, color=colour, markersize=5, label=strategy if index == 0 else None)
            panel.annotate(f"{row[1]:g}", (float(np.mean(moved)), float(np.mean(kept))), fontsize=7, xytext=(4, 3),
                           textcoords="offset points", color=colour)  # fmt: skip
    panel.set(xlabel=r"$\Vert\theta - \theta_0\Vert\ /\ \Vert\theta_0\Vert$, %", ylabel="linear CKA to the pre-trained",
              title=f"{upstream} fine-tuned on {scenario.upper()}; numbers are α")  # fmt: skip
    panel.legend(loc="lower left")
    figures.save(figure, path.with_name(path.stem), ["svg"])
    return path
