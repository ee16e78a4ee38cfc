"""In what rows differ from the published ones: for a dry run, and as the tables of docs/paper.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from speechft.config.locate import read_group
from speechft.reproduce.plan import deviations_of, searched_rates
from speechft.reproduce.request import Request
from speechft.reproduce.rows import Row, rates, rows, scoring

SHARED, SCORING = "all", "scoring"
MERGED = {
    "multitask": "which tasks are ours (one each of content, speaker and emotion), and that each has the same weight; "
    "the published code has no multitask training"
}
"""Of rows that merge other rows' runs, beside what those have."""


def of_rows(picked: Sequence[Row], request: Request) -> dict[str, dict[str, str]]:
    """What differs, and why, by experiment; first what all have in common (`SHARED`), last `SCORING`.

    Args:
        picked: the rows.
        request: a search of rates is not named where the user has said which.
    """
    known = rows()
    parts = [part for row in picked for part in ([known[name] for name in row.merged] or [row])]
    each = {str(part.experiment): deviations_of(str(part.experiment)) for part in parts}
    shared = dict(set.intersection(*(set(one.items()) for one in each.values())))
    first = next(iter(each.values()))
    found = {SHARED: {key: why for key, why in first.items() if key in shared}}  # in the order they are written in
    found |= {name: _without(one, shared) for name, one in each.items()}
    found |= {row.name: MERGED for row in picked if row.merged}
    searched = any(searched_rates(task, request) for task in rates())
    found[SCORING] = {key: why for key, why in scoring().items() if searched or key != "rate"}
    return {name: one for name, one in found.items() if one}


def tables() -> str:
    """Every experiment's deviations as Markdown: first what holds for all, then what each has besides or instead."""
    shared = read_group("experiment", "paper/_common")["paper"]["deviations"]
    lines = _table("All rows, where their own table does not say otherwise", shared)
    for name in dict.fromkeys(row.experiment for row in rows().values() if row.experiment):
        lines += _table(f"`{name}`", _without(deviations_of(name), shared))
    lines += _table("Merged task vectors (`multitask-merged`), beside what their own rows have", MERGED)
    lines += _table("Scoring", scoring())
    return "\n".join(lines)


def _without(found: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {key: why for key, why in found.items() if known.get(key) != why}


def _table(title: str, found: Mapping[str, str]) -> list[str]:
    rows = [f"| {key} | {why} |" for key, why in found.items()]
    return [f"### {title}", "", "| | what we do, and why |", "|---|---|", *rows, ""]
