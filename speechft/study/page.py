"""The tables and pictures of docs/study.md, from the results alone; the words around them are written by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from speechft.console import say
from speechft.files import write_text
from speechft.study import pictures
from speechft.study.differences import Difference, holm
from speechft.study.features import closer, features
from speechft.study.plan import CLAIMED, TITLES, TRAINED, label
from speechft.study.results import Scores, Study


def write_page(page: Path, results: Path, drawings: Path | None = None) -> None:
    """Fill the marked places of the page (`<!-- study: NAME -->` ... `<!-- end -->`) and draw its pictures.

    Args:
        page: made, of these places alone, where there is none.
        results: JSON of the pieces.
        drawings: where the pictures go; None is beside `results`.
    """
    drawings = drawings or results.parent
    study = Study.read(results)
    text = page.read_text(encoding="utf-8") if page.is_file() else "".join(_mark(name, "") for name in PLACES)
    for name, make in PLACES.items():
        before, opening, rest = text.partition(f"<!-- study: {name} -->")
        if opening:
            text = before + _mark(name, make(study)) + rest.partition("<!-- end -->")[2]
    write_text(page, text)
    for scenario in ("pr", "sid"):
        for upstream in _pictured(study, scenario):
            pictures.curves(study, upstream, scenario, drawings / f"{scenario}-{upstream}-alpha.svg")
            pictures.features(study, upstream, scenario, drawings / f"{scenario}-{upstream}-drift.svg")
    say(f"{page}: {sum(map(len, study.models.values()))} models")


def _mark(name: str, content: str) -> str:
    return f"<!-- study: {name} -->\n{content}<!-- end -->\n".removesuffix("\n")


def table(study: Study, scenario: str) -> str:
    """A table for each upstream: scores with their spread over seeds, and the difference to the pre-trained row."""
    parts = []
    for upstream in study.upstreams(scenario):
        probes = study.probes(upstream)
        headings = [*(TITLES[probe] for probe in probes), "CKA to θ0", "‖τ‖/‖θ0‖, %"]
        base = [_cell(study.pretrained(upstream, probe)) for probe in probes]
        lines = [f"**{upstream}**\n", f"| | {' | '.join(headings)} |", "|---|" + "---|" * len(headings)]
        lines.append(f"| pre-trained | {' | '.join(base)} | 1 | 0 |")
        for row in study.rows(upstream, scenario):
            cells = []
            for probe in probes:
                scores = study.scores(upstream, scenario, *row, probe)
                cells.append(_cell(scores) + _change(study.against(upstream, scenario, row, probe)))
            models = study.at(upstream, scenario, row)
            cka = np.mean([np.mean(model["cka"]) for model in models])
            update = 100 * np.mean([model["update"] for model in models])
            lines.append(f"| {label(*row)} | {' | '.join(cells)} | {cka:.3f} | {update:.2f} |")
        counts = {len(study.at(upstream, scenario, row)) for row in study.rows(upstream, scenario)}
        seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
        lines.append(
            f"\nSeeds: {len(study.pretrained(upstream, probes[0]))} of the pre-trained row, {seeds} of the others.\n"
        )
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n" if parts else "Not measured yet.\n"


def _cell(scores: Mapping[int, Scores]) -> str:
    values = [score["value"] for score in scores.values()]
    if not values:
        return "–"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _change(found: Difference | None) -> str:
    if found is None:
        return ""
    if len(found.by_seed) == 1:
        return f" ({found.mean:+.1f}: one seed)"
    interval = "no interval" if math.isnan(found.p) else f"{found.low:+.1f} to {found.high:+.1f}"
    return f" ({found.mean:+.1f}: {interval})"


def claims(study: Study) -> str:
    """The paper's three claims for each upstream and scenario, with p-values corrected for their number."""
    lines = [
        "| fine-tuned on | not trained | Speech-FT − pre-trained | p | regular − pre-trained | p | gain of α = 1 in "
        "the trained task | of it kept at 0.25 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    tests: list[float] = []
    rows: list[tuple[list[str], list[int | None]]] = []
    for scenario in TRAINED:
        for upstream in study.upstreams(scenario):
            for probe in study.probes(upstream):
                if probe in TRAINED[scenario]:
                    continue
                cells = [scenario.upper(), f"{upstream}, {probe}"]
                places: list[int | None] = []
                for row in (CLAIMED, ("regular", 1.0)):
                    found = study.against(upstream, scenario, row, probe)
                    cells.append(_change(found).strip(" ()") if found else "–")
                    # What is not measured yet is no test, nor is one seed: its draws are of speakers alone.
                    tested = found is not None and not math.isnan(found.p) and len(found.by_seed) > 1
                    places.append(len(tests) if tested else None)
                    tests += [found.p] if found is not None and tested else []
                gain = study.against(upstream, scenario, ("stable", 1.0), scenario)
                merged = study.against(upstream, scenario, CLAIMED, scenario)
                cells.append(_change(gain).strip(" ()") if gain else "–")
                kept = merged.mean / gain.mean if gain and merged and gain.low > 0 and len(gain.by_seed) > 1 else None
                cells.append("–" if kept is None else f"{100 * kept:.0f} %")
                rows.append((cells, places))
    corrected = holm(tests)
    for cells, places in rows:
        first, second = ("–" if place is None else f"{corrected[place]:.3f}" for place in places)
        lines.append("| " + " | ".join([*cells[:3], first, cells[3], second, *cells[4:]]) + " |")
    return "\n".join(lines) + "\n" if rows else "Not measured yet.\n"


def choices(study: Study) -> str:
    """What `--alpha auto` chose for each run, by the dev set of its own corpus."""
    lines = [
        "| fine-tuned on | upstream | seed | chosen α | of draws | dev metric: α = 0, chosen, 1 | CKA: chosen, α = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for (scenario, upstream, _, seed), found in sorted(study.choices.items()):
        by_alpha = {one["alpha"]: one for one in found["candidates"]}
        ours = by_alpha[found["chosen"]]
        measure, metric = (one["name"] for one in found["objectives"])
        title, digits = found["objectives"][1]["title"], found["objectives"][1]["digits"]
        values = ", ".join(f"{one['scores'][metric]:.{digits}f}" for one in (by_alpha[0.0], ours, by_alpha[1.0]))
        kept = ", ".join(f"{one['scores'][measure]:.3f}" for one in (ours, by_alpha[1.0]))
        share = ours["chosen_share"]
        cells = [scenario.upper(), upstream, str(seed), f"{found['chosen']:g}",
                 "–" if share is None else f"{100 * share:.0f} %", f"{title} {values}", kept]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if study.choices else "Not measured yet.\n"


def rates(study: Study) -> str:
    """How often each learning rate of the probes' heads was the best on dev: at an end of the search more may lie."""
    won: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (upstream, *_), models in study.models.items():
        for model in models.values():
            for probe, score in model["scores"].items():
                counts = won[probe, upstream]
                for rate in score["dev"]:
                    counts[rate] += rate == f"{score['lr']:g}"
    lines = ["| probe | upstream | how often each rate of the head won |", "|---|---|---|"]
    for probe, upstream in sorted(won, key=lambda one: (list(TITLES).index(one[0]), one[1])):
        counts = won[probe, upstream]
        told = ", ".join(f"{rate}: {counts[rate]}" for rate in sorted(counts, key=float))
        lines.append(f"| {TITLES[probe].partition(',')[0]} | {upstream} | {told} |")
    return "\n".join(lines) + "\n" if won else "Not measured yet.\n"


def drawn(study: Study, scenario: str) -> str:
    """The pictures of a scenario, as Markdown."""
    lines = []
    for upstream in _pictured(study, scenario):
        lines.append(f"![{upstream}: scores against α](study/{scenario}-{upstream}-alpha.svg)")
        lines.append(f"![{upstream}: features against weights](study/{scenario}-{upstream}-drift.svg)")
    return "\n".join(lines) + "\n" if lines else ""


def _pictured(study: Study, scenario: str) -> list[str]:
    """The upstreams of whose fine-tuning there is something to draw: Speech-FT's model, at least."""
    return [one for one in study.upstreams(scenario) if study.scores(one, scenario, *CLAIMED, scenario)]


PLACES: Mapping[str, Callable[[Study], str]] = {
    "claims": claims,
    "features": features,
    "closer": closer,
    "choices": choices,
    "rates": rates,
    "pr": lambda study: table(study, "pr"),
    "pr pictures": lambda study: drawn(study, "pr"),
    "sid": lambda study: table(study, "sid"),
    "sid pictures": lambda study: drawn(study, "sid"),
}
"""Marks of the page and what fills them."""
