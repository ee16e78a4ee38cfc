"""Tasks that are several evaluations under one name (ER's folds): each run alone and kept, then combined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json, sha256_json, write_json
from speechft.superb.fast import Outcome
from speechft.superb.tasks.base import Task

Run = Callable[[Task, Path], tuple[Outcome, str]]
"""A task and its working folder -> what it ended with, and the hash of its data."""

_FILE = "outcome.json"


def run_variants(task: Task, names: Sequence[str], work: Path, fingerprint: str, run: Run) -> tuple[Outcome, str]:
    """Run each variant in its own folder, or take what a finished one left there.

    Args:
        task: it makes the variants (`Task.variant`).
        names: of the variants.
        work: folder of the whole evaluation; variant NAME works in `work/NAME`.
        fingerprint: of the whole evaluation; a kept outcome of another one is not taken.

    Returns:
        The combined outcome (`combine`) and the hash of all data.
    """
    outcomes: dict[str, Outcome] = {}
    hashes = []
    for name in names:
        folder = work / name
        kept = _kept(folder / _FILE, fingerprint)
        if kept is None:
            folder.mkdir(parents=True, exist_ok=True)
            variant = task.variant(name)
            outcome, data = run(variant, folder)
            lines = variant.utterances(outcome.records)
            kept = {
                "fingerprint": fingerprint, "data": data, "metrics": outcome.metrics, "dev": outcome.dev,
                "weights": outcome.weights, "steps": outcome.steps, "lr": outcome.lr, "search": outcome.search,
                "utterances": lines,
            }  # fmt: skip
            write_json(folder / _FILE, kept)
        outcomes[name] = Outcome(
            kept["metrics"], kept["dev"], {"utterances": kept["utterances"]}, kept["weights"], kept["steps"],
            kept["lr"], kept["search"],
        )  # fmt: skip
        hashes.append(kept["data"])
    return combine(outcomes), sha256_json(hashes)


def _kept(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except SpeechFTError:
        return None  # damaged: run again
    return content if isinstance(content, dict) and content.get("fingerprint") == fingerprint else None


def combine(outcomes: Mapping[str, Outcome]) -> Outcome:
    """The mean over variants.

    Returns:
        `metrics` and `dev`: each value's mean under its name (but `step`), then each variant's own as `NAME-VARIANT`.
        `records`: `utterances`, the lines of all variants, with `file` as `VARIANT/FILE` and a `weight` with which the
        weighted mean over utterances is the mean of the variants. `weights`: mean per layer. `steps`: of one variant.
        `lr`: None if variants chose different ones. `search`: of all variants, with the name of each as `variant`.
    """
    total = sum(len(outcome.records["utterances"]) for outcome in outcomes.values())
    lines = []
    for name, outcome in outcomes.items():
        own = outcome.records["utterances"]
        weight = total / (len(outcomes) * len(own)) if own else 0.0
        lines += [{**line, "file": f"{name}/{line['file']}", "weight": weight} for line in own]
    rates = {outcome.lr for outcome in outcomes.values()}
    layers = zip(*(outcome.weights for outcome in outcomes.values()), strict=True)
    return Outcome(
        _means({name: outcome.metrics for name, outcome in outcomes.items()}),
        _means({name: outcome.dev for name, outcome in outcomes.items() if outcome.dev}),
        {"utterances": lines},
        [sum(layer) / len(layer) for layer in layers],
        max(outcome.steps for outcome in outcomes.values()),
        rates.pop() if len(rates) == 1 else None,
        [{"variant": name, **one} for name, outcome in outcomes.items() for one in outcome.search],
    )


def _means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    keys = list(dict.fromkeys(key for own in values.values() for key in own))
    means = {key: sum(own[key] for own in values.values()) / len(values) for key in keys if key != "step"}
    return {**means, **{f"{key}-{name}": own[key] for key in keys for name, own in values.items()}}
