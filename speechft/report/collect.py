"""Reading what SUPERB evaluations left: scores, and per-utterance results for intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.report.columns import Column, columns_of
from speechft.report.shapes import Utterances, recognise

_TOLERANCE = 0.02
"""Points by which utterances may miss the score they belong to: experts average in float32, some over batches."""


@dataclass(frozen=True)
class Score:
    """One model on one metric of one task with one seed.

    Attributes:
        value: of the metric, in per cent.
        higher_better: its direction.
        utterances: what the score is made of, for intervals; None where that is not known.
        record: the content of `TASK.json`.
        why: why there are no utterances, for people.
        path: of `TASK.json`.
    """

    task: str
    metric: str
    value: float
    higher_better: bool
    seed: int
    utterances: Utterances | None
    record: Mapping[str, Any]
    why: str = ""
    path: Path = field(default_factory=Path)


def read_scores(folder: Path) -> dict[str, Score]:
    """All finished tasks of one model: `OUT/MODEL` -> task name -> score of the main metric."""
    return {path.stem: read_score(path) for path in sorted(folder.glob("*.json"))}


def read_score(path: Path) -> Score:
    """The main metric of one `TASK.json` and of the `TASK.utterances.jsonl` beside it.

    Raises:
        SpeechFTError: the file is missing or damaged.
    """
    return next(iter(read_metrics(path).values()))


def read_metrics(path: Path) -> dict[str, Score]:
    """Every reported metric of one `TASK.json`: the column's key -> score, the main metric first.

    Utterances that are missing, damaged, of no known shape, or that do not give the score again leave the score
    without them, and `Score.why` says so.

    Raises:
        SpeechFTError: `TASK.json` is missing, damaged, or not a result.
    """
    record = read_json(path)
    try:
        columns = columns_of(record)
        seed = int(record["seed"])
        values = [float(record["metrics"][column.metric]) for column in columns]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpeechFTError(
            f"{path} is not the result of an evaluation ({type(error).__name__}: {error})",
            "evaluate it again: speechft eval superb",
        ) from error
    if not columns or not all(math.isfinite(value) for value in values):
        raise SpeechFTError(f"{path} holds no score", "evaluate it again: speechft eval superb")
    lines, why = _lines(path.with_suffix(".utterances.jsonl"))
    return {
        column.key: _score(column, value, seed, record, lines, why, path)
        for column, value in zip(columns, values, strict=True)
    }


def _lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("not an object in every line")
    except FileNotFoundError:
        return [], f"{path} is missing"
    except (ValueError, OSError) as error:  # JSON and UTF-8 errors are ValueErrors
        return [], f"{path} is damaged ({error})"
    return lines, "" if lines else f"{path} is empty"


def _score(
    column: Column, value: float, seed: int, record: dict[str, Any], lines: list[dict[str, Any]], why: str, path: Path
) -> Score:
    utterances = recognise(lines, column.metric)
    if lines and utterances is None:
        why = f"the results of single utterances in {path.with_suffix('.utterances.jsonl')} are of no known shape"
    per_cent = 100 * value
    if utterances is not None:
        again = 100 * float(utterances.score()[0])
        if not abs(again - per_cent) <= _TOLERANCE:  # or it is no number
            utterances = None
            why = f"{path} records {column.metric} {per_cent:.2f}, but its utterances give {again:.2f}"
    return Score(column.task, column.metric, per_cent, column.higher_better, seed, utterances, record, why, path)
