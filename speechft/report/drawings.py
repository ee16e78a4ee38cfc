"""The plots of a report, as files beside it and as SVG for its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft import figures


def draw(report: Mapping[str, Any], folder: Path, formats: Sequence[str]) -> list[dict[str, Any]]:
    """Draw everything.

    Args:
        report: with `plots` over α, `drift` and `layer_weights`.
        folder: where the files go.
        formats: of the files.

    Returns:
        For each plot: `kind` (`alpha`, `choice`, `drift` or `weights`), `title`, `caption` (how to read it), `file` and
        `files`, and `svg`, its text.
    """
    drawn = []
    for kind, stem, title, caption, figure in _figures(report):
        svg = figures.as_svg(figure)
        files = figures.save(figure, folder / stem, formats)
        file = next((name for name in files if not name.endswith(".pdf")), files[0])  # Markdown shows no PDF
        drawn.append({"kind": kind, "title": title, "caption": caption, "file": file, "files": files, "svg": svg})
    return drawn


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, Any]]:
    """Kind, file, title, caption and figure, one open at a time."""
    from speechft.analysis import plots
    from speechft.report.plot import alpha_figure

    for plot in report["plots"]:
        figure = alpha_figure(plot["curves"], "", plot["intervals"])
        yield "alpha", Path(plot["file"]).stem, plot["title"], _ALPHA, figure
    from speechft.choosing.picture import figure_of

    for number, one in enumerate(report["choices"], 1):
        end = f"-{number}" if len(report["choices"]) > 1 else ""
        yield "choice", f"choice{end}", f"The choice of α for {one['run']}", _CHOICE, figure_of(one, one["run"])
    several = len(report["drift"]) > 1
    for number, one in enumerate(report["drift"], 1):
        end, base, models = f"-{number}" if several else "", str(one["base"]["name"]), one["models"]
        if one["audio"] is not None:
            title = f"Features kept against weights moved, from {base}"
            yield "drift", f"drift{end}", title, _DRIFT, plots.similarity_by_update(models, base)
            title = f"Features against those of {base}, by hidden state"
            yield "drift", f"similarity{end}", title, _SIMILARITY, plots.similarity(models, base)
        yield "drift", f"updates{end}", f"Where the weights moved from {base}", _UPDATES, plots.updates(models)
        yield "drift", f"modules{end}", "The same by layer and module", _MODULES, plots.modules(models)
    rows = sorted(report["rows"], key=lambda row: bool(row["pretrained"]))  # so a run has one colour in all plots
    series = [{"series": row["run"] or row["name"], "name": row["name"]} for row in rows]
    looks = {one["name"]: look for one, look in zip(series, plots.styled(series), strict=True)}
    several = len(report["layer_weights"]) > 1
    for number, one in enumerate(report["layer_weights"], 1):
        title = "Layer weights that the heads learned" + (f", beside {one['base']}" if several and one["base"] else "")
        stem = f"layer-weights-{number}" if several else "layer-weights"
        yield "weights", stem, title, _WEIGHTS, plots.layer_weights(one["tasks"], one["base"], looks)


_ALPHA = (
    "α = 0 is the pre-trained model, α = 1 the fine-tuned one; the line goes through means over seeds, each seed is a "
    "point, bars are 95 % intervals over test utterances. Grey: the pre-trained score, and the paper's α = 0.25."
)
_CHOICE = (
    "What each α of the sweep scored. Filled points are on the Pareto front, hollow ones are beaten by another in "
    "everything, the star is the chosen α; shaded: 95 % intervals over the utterances of the dev set."
)
_DRIFT = (
    "Each point is a model: how far its weights are from the pre-trained ones, and how alike its features are to the "
    "pre-trained features (1: the same). A curve follows one run over α. Higher at the same distance keeps more."
)
_SIMILARITY = "1 (or a distance of 0) means that a hidden state did not change. Darker: more of the fine-tuned side."
_UPDATES = (
    "The norm of the change over the norm of the pre-trained weights, in data-flow order; other: what is in no layer "
    "(norms at the ends, the embedding of masked frames)."
)
_MODULES = "For the model of each run that moved furthest; q, k, v, out: attention; ffn: feed-forward."
_WEIGHTS = (
    "Each SUPERB head reads a weighted sum of all hidden states; these are the weights it learned (QbE: the layer that "
    "was best on dev). Darker: more of the fine-tuned side. Below: the change against the pre-trained model."
)
