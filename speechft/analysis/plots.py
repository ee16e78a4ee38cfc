"""The plots of an analysis: similarity by hidden state, update by part and module, one against the other, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from speechft import figures

Models = Sequence[Mapping[str, Any]]
"""`models` of `analysis.json`."""

_MEASURES = (("cka", "linear CKA"), ("cosine", "cosine"), ("relative_l2", "relative L2 distance"))
_PRETRAINED = "0.35"
_ACROSS = 4  # panels
_RELATIVE = r"$\Vert\theta - \theta_0\Vert\ /\ \Vert\theta_0\Vert$, %"
_MODULES = ("q", "k", "v", "out", "ffn in", "ffn out", "norm", "final norm")


def draw(result: Mapping[str, Any], folder: Path, formats: Sequence[str] = ("png",)) -> list[dict[str, Any]]:
    """All plots that an analysis gives.

    Returns:
        For each: `name`, `title` (what it shows, for people) and `files`.
    """
    formats = figures.checked_formats(formats)
    base, models = str(result["base"]["name"]), list(result["models"])
    made: list[tuple[str, str, Any]] = []
    if result["audio"] is not None:
        made.append(("similarity", f"Features against those of {base}, by hidden state", similarity(models, base)))
        made.append(
            ("drift", f"Similarity to {base} against the size of the weight update", similarity_by_update(models, base))
        )
    made.append(("updates", f"Size of the weight update, relative to {base}, by part of the model", updates(models)))
    made.append(("modules", f"Size of the weight update, relative to {base}, by layer and module", modules(models)))
    if result["layer_weights"]:
        looks = {str(model["name"]): look for model, look in zip(models, styled(models), strict=True)}
        figure = layer_weights(result["layer_weights"], base, looks)
        made.append(("layer-weights", "Layer weights that SUPERB's heads learned", figure))
    return [
        {"name": name, "title": title, "files": figures.save(figure, folder / name, formats)}
        for name, title, figure in made
    ]


def styled(models: Models) -> list[tuple[Any, str, Any]]:
    """Colour, marker and line of each model: a `series` is a colour, darker towards its last model."""
    series = list(dict.fromkeys(str(model["series"]) for model in models))
    styles = dict(zip(series, cycle(figures.STYLES), strict=False))
    looks = []
    for model in models:
        colour, marker, line = styles[str(model["series"])]
        of_series = [one for one in models if one["series"] == model["series"]]
        place = (of_series.index(model) + 1) / len(of_series)
        looks.append((figures.faded(colour, 0.3 + 0.7 * place), marker, line))
    return looks


def similarity(models: Models, base: str) -> Any:
    """A panel per measure, a line per model, over hidden states."""
    pyplot = figures.pyplot()
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for panel, (key, name) in zip(axes, _MEASURES, strict=True):
        for model, (colour, marker, line) in zip(models, styled(models), strict=True):
            states = [one["layer"] for one in model["layers"]]
            values = [float("nan") if one[key] is None else one[key] for one in model["layers"]]
            panel.plot(states, values, linestyle=line, color=colour, marker=marker, markersize=4,
                       label=figures.plain(model["name"]))  # fmt: skip
        panel.set(xlabel="hidden state (0: input of the first layer)", title=f"{name} to {figures.plain(base)}")
        panel.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def similarity_by_update(models: Models, base: str) -> Any:
    """The paper's picture: features kept against how far the weights went, a curve over α per series."""
    pyplot = figures.pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharex=True)
    series: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        series.setdefault(str(model["series"]), []).append(model)
    for panel, key, name in ((axes[0], "cka", "linear CKA"), (axes[1], "cosine", "cosine")):
        for (label, members), (colour, marker, line) in zip(series.items(), cycle(figures.STYLES), strict=False):
            points: list[tuple[float, float, float | None]] = [
                (100 * model["update"]["relative"], model["similarity"][key], model["alpha"])
                for model in members
                if model["update"]["relative"] is not None and model["similarity"][key] is not None
            ]
            points.sort(key=lambda point: point[0])
            curve = [(0.0, 1.0), *((x, y) for x, y, _ in points)] if len(points) > 1 else [(x, y) for x, y, _ in points]
            panel.plot(*zip(*curve, strict=True), linestyle=line, color=colour, zorder=2)
            panel.plot(
                [x for x, _, _ in points],
                [y for _, y, _ in points],
                marker=marker,
                linestyle="",
                color=colour,
                label=figures.plain(label),
            )
            for x, y, alpha in points:
                if alpha is not None:
                    panel.annotate(f"{alpha:g}", (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
        panel.plot([0], [1], "*", color="black", markersize=10, label=figures.plain(base), zorder=3)
        panel.set(xlabel=_RELATIVE + "  (numbers: α)", ylabel=f"{name}, mean over hidden states")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def updates(models: Models) -> Any:
    """Relative update by part of the model, a line per model."""
    pyplot = figures.pyplot()
    parts = list(dict.fromkeys(part for model in models for part in model["update"]["parts"]))
    figure, panel = pyplot.subplots(figsize=(max(6.0, 0.42 * len(parts) + 3), 3.8), layout="constrained")
    for model, (colour, marker, line) in zip(models, styled(models), strict=True):
        own = model["update"]["parts"]
        values = [_per_cent(own[part]["relative"]) if part in own else float("nan") for part in parts]
        panel.plot(range(len(parts)), values, linestyle=line, color=colour, marker=marker, markersize=4,
                   label=figures.plain(model["name"]))  # fmt: skip
    panel.set(ylabel=_RELATIVE, ylim=(0, None))
    panel.set_xticks(range(len(parts)), [part.replace("layers.", "layer ") for part in parts], rotation=40, ha="right")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def modules(models: Models) -> Any:
    """A panel per series, its model with the largest update: layers down, modules across, darker where more moved."""
    pyplot = figures.pyplot()
    largest: dict[str, Mapping[str, Any]] = {}
    for model in models:
        known = largest.get(str(model["series"]))
        if known is None or model["update"]["norm"] > known["update"]["norm"]:
            largest[str(model["series"])] = model
    shown = list(largest.values())
    layers = [part for part in shown[0]["update"]["parts"] if part.startswith("layers.")]
    names = list(dict.fromkeys(name for part in layers for name in shown[0]["update"]["parts"][part]["modules"]))
    names.sort(key=lambda name: _MODULES.index(name) if name in _MODULES else len(_MODULES))
    size = (max(4.2, 0.62 * len(names) + 1.6), max(2.2, 0.32 * len(layers) + 1.4))
    figure, axes = pyplot.subplots(
        1, len(shown), figsize=(size[0] * len(shown) + 0.8, size[1]), squeeze=False, layout="constrained"
    )
    tables = [[[_module(model, part, name) for name in names] for part in layers] for model in shown]
    finite = [value for table in tables for row in table for value in row if value == value]
    top = max(finite, default=0.0) or 1.0
    for panel, model, table in zip(axes[0], shown, tables, strict=True):
        # cells as shapes, not as a picture: a vector format then holds no pixels
        image = panel.pcolormesh(table, cmap="cividis_r", vmin=0, vmax=top, edgecolors="white", linewidth=0.5)
        for row, values in enumerate(table):
            for column, value in enumerate(values):
                if value == value:
                    colour = "white" if value > 0.55 * top else "black"
                    panel.text(
                        column + 0.5, row + 0.5, f"{value:.2g}", ha="center", va="center", fontsize=7, color=colour
                    )
        panel.set_xticks([0.5 + place for place in range(len(names))], names, rotation=40, ha="right")
        labels = [part.replace("layers.", "layer ") for part in layers]
        panel.set_yticks([0.5 + place for place in range(len(layers))], labels)
        panel.invert_yaxis()
        panel.set_title(figures.plain(model["name"]))
        panel.grid(False)
    figure.colorbar(image, ax=list(axes[0]), label=_RELATIVE).solids.set_rasterized(False)
    return figure


def _module(model: Mapping[str, Any], part: str, name: str) -> float:
    own = model["update"]["parts"].get(part, {}).get("modules", {}).get(name)
    return float("nan") if own is None else _per_cent(own["relative"])


def _per_cent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def layer_weights(tasks: Mapping[str, Mapping[str, Any]], base: str, looks: Mapping[str, Any] | None = None) -> Any:
    """Two panels per task: each model's weights over hidden states, and what of them changed by fine-tuning.

    Args:
        tasks: task -> model -> `weights`, as `learned.learned_weights` gives them.
        base: the pre-trained model's name, drawn wide and grey; changes are against it, where it was scored.
        looks: colour, marker and line of each model; None chooses them.
    """
    pyplot = figures.pyplot()
    across = min(len(tasks), _ACROSS)
    rows = -(-len(tasks) // across)
    changes = any(base in models and len(models) > 1 for models in tasks.values())
    each = 2 if changes else 1
    figure, axes = pyplot.subplots(
        rows * each, across, figsize=(3.3 * across + 0.4, 2.4 * rows * each + 0.8), squeeze=False, layout="constrained"
    )
    for panel in axes.flat:
        panel.set_axis_off()
    names = list(dict.fromkeys(name for models in tasks.values() for name in models))
    if looks is None:
        looks = dict(zip([name for name in names if name != base], cycle(figures.STYLES), strict=False))
    for number, (task, models) in enumerate(tasks.items()):
        row, column = divmod(number, across)
        upper = axes[row * each][column]
        for name, own in models.items():
            _weights(upper, own["weights"], name, None if name == base else looks[name])
        upper.set(title=task.upper(), ylim=(0, None), ylabel="learned weight" if column == 0 else "")
        panels = [upper]
        if base in models and len(models) > 1:
            lower = axes[row * each + 1][column]
            before = models[base]["weights"]
            for name, own in models.items():
                if name != base and len(own["weights"]) == len(before):
                    change = [after - was for after, was in zip(own["weights"], before, strict=True)]
                    _weights(lower, change, name, looks[name])
            lower.axhline(0, color=_PRETRAINED, linewidth=1)
            lower.set_ylabel("change" if column == 0 else "")
            panels.append(lower)
        for panel in panels:
            panel.set_axis_on()
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[-1].set_xlabel("hidden state")
    handles = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=across)
    return figure


def _weights(panel: Any, values: Sequence[float], name: str, look: Any) -> None:
    colour, marker, line = (_PRETRAINED, "o", "-") if look is None else look
    panel.plot(range(len(values)), values, linestyle=line, color=colour, marker=marker, markersize=4,
               label=figures.plain(name), linewidth=3.0 if look is None else 1.5,
               alpha=0.6 if look is None else 1.0)  # fmt: skip
