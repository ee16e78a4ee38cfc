"""An analysis as a table, for the terminal and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each model's update and, where audio was heard, its similarities.

    Args:
        found: `analysis.json`, or what of it a report keeps: `models` and `audio`.
    """
    heard = found["audio"] is not None
    head = ["model", "α", "‖θ−θ0‖/‖θ0‖ %", *(["CKA", "lowest (state)", "cosine", "relative L2"] if heard else [])]
    rows = []
    for model in found["models"]:
        row = [str(model["name"]), "–" if model["alpha"] is None else f"{model['alpha']:g}",
               _number(model["update"]["relative"], 100, 3)]  # fmt: skip
        if heard:
            own, lowest = model["similarity"], model["similarity"]["lowest"]
            row += [_number(own["cka"]), "–" if lowest is None else f"{lowest['cka']:.4f} ({lowest['layer']})",
                    _number(own["cosine"]), _number(own["relative_l2"])]  # fmt: skip
        rows.append(row)
    return head, rows


def about(found: Mapping[str, Any]) -> str:
    """What the figures are against, and what was heard."""
    audio = found["audio"]
    if audio is None:
        return f"Against {found['base']['name']}; no audio was heard."
    return (
        f"Against {found['base']['name']}; similarities are means over hidden states, on all {audio['frames']} frames "
        f"of {audio['utterances']} utterances ({audio['seconds']:.0f} s) of {audio['source']}."
    )


def _number(value: float | None, factor: float = 1.0, digits: int = 4) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"
