"""The layer weights that SUPERB's heads learned, from the results of evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.superb.tasks import NAMES


def learned_weights(folders: Iterable[Path], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The learned weights of each task for some models.

    Args:
        folders: results (`OUT`), such as a run's `superb/`; those that are not there are passed over.
        names: sha256 of a model's weights -> its name.

    Returns:
        Task -> model's name -> `weights`: one a hidden state, from the input of the first layer on, summing to 1, the
        mean over results; `results`: how many there were. QbE learns none: its weight is 1 for the searched layer that
        was best on dev.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    seen: set[Path] = set()
    for path in sorted(file for folder in folders for file in folder.glob("*/*.json")):
        if path.stem not in NAMES or path.resolve() in seen or path.parent.name.startswith("."):
            continue
        seen.add(path.resolve())
        try:
            record = read_json(path)
            weights = [float(value) for value in record["layer_weights"]]
            name = names.get(str(record["upstream"]["sha256"]))
        except (SpeechFTError, KeyError, TypeError, ValueError):
            continue  # unfinished, damaged, or of another version: the report says so
        if name is not None and weights:
            found.setdefault(path.stem, {}).setdefault(name, []).append(weights)
    order = list(dict.fromkeys(names.values()))
    return {
        task: {name: _mean(models[name]) for name in order if name in models}
        for task in NAMES
        if (models := found.get(task))
    }


def _mean(results: list[list[float]]) -> dict[str, Any]:
    same = [one for one in results if len(one) == len(results[0])]
    return {"weights": [sum(column) / len(same) for column in zip(*same, strict=True)], "results": len(same)}
