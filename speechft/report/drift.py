"""What `speechft analyze` found out about the models of a report, and the layer weights their heads learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.report.columns import known_keys
from speechft.report.rows import Row
from speechft.runs import is_run


def runs_of(rows: Iterable[Row], paths: Sequence[Path] = ()) -> list[Path]:
    """The runs that were named, and those that the scored models are from."""
    found = [path for path in paths if is_run(path)]
    for row in rows:
        for entry in row.entries:
            source = Path(str(entry.identity.get("source") or "")).expanduser()
            if source.is_absolute():  # hub names are none
                found += [path for path in (source.parent, source.parent.parent) if is_run(path)]
    return list(dict.fromkeys(path.resolve() for path in found))


def read_analyses(folders: Iterable[Path], notes: list[str], rows: Iterable[Row] = ()) -> list[dict[str, Any]]:
    """The content of each `analysis/analysis.json`; those of one base and one audio are joined, each model once.

    Args:
        folders: runs.
        notes: what cannot be read is said here.
        rows: of the table; a model that was analysed with other weights than the same folder was scored with is left
            out.
    """
    scored: dict[str, set[str]] = {}
    for entry in (entry for row in rows for entry in row.entries):
        scored.setdefault(str(entry.identity.get("source")), set()).add(entry.weights)
    joined: dict[tuple[str, str], dict[str, Any]] = {}
    for path in (folder / "analysis" / "analysis.json" for folder in folders):
        if not path.is_file():
            continue
        try:
            found = read_json(path)
            audio = found["audio"]
            key = (str(found["base"]["sha256"]), str(audio["sha256"]) if audio else "")
            models = [dict(model) for model in found["models"] if model["update"]["parts"]]
        except (SpeechFTError, KeyError, TypeError) as error:
            notes.append(f"left out: {path} is not the result of an analysis ({type(error).__name__}); run it again")
            continue
        fresh = [one for one in models if one["sha256"] in scored.get(str(one.get("source")), {one["sha256"]})]
        old = ", ".join(str(model["name"]) for model in models if model not in fresh)
        if old:
            notes.append(f"left out: {path} knows other weights of {old} than were scored; run speechft analyze again")
        if not fresh:
            continue
        known = joined.setdefault(key, {"base": found["base"], "audio": audio, "models": [], "notes": []})
        seen = {model["sha256"] for model in known["models"]}
        known["models"] += [model for model in fresh if model["sha256"] not in seen]
        known["notes"] = list(dict.fromkeys([*known["notes"], *found.get("notes", ())]))
    return list(joined.values())


def learned(rows: Sequence[Row], bases: Sequence[int | None]) -> list[dict[str, Any]]:
    """The layer weights behind the scores, for each row that others are compared with.

    Args:
        rows: of the table.
        bases: for each, the number of the row it is compared with.

    Returns:
        `base`: a row's name (empty where rows are compared with nothing); `tasks`: task -> row's name -> `weights`, one
        a hidden state, the mean over `results`.
    """
    groups: dict[int | None, list[int]] = {}
    for number, base in enumerate(bases):
        alone = base is None and number not in bases
        groups.setdefault(None if alone else number if base is None else base, []).append(number)
    found = []
    for base, numbers in groups.items():
        tasks: dict[str, dict[str, Any]] = {}
        for number in numbers:
            for scores in rows[number].scores.values():
                lists = [score.record.get("layer_weights") for score in scores]
                same = [one for one in lists if isinstance(one, list) and one and len(one) == len(lists[0] or ())]
                if same:
                    mean = [sum(map(float, column)) / len(same) for column in zip(*same, strict=True)]
                    own = tasks.setdefault(scores[0].task, {})
                    own.setdefault(rows[number].name, {"weights": mean, "results": len(same)})
        if tasks:
            order = [key.partition(".")[0] for key in known_keys()]
            ordered = dict(
                sorted(tasks.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
            )
            found.append({"base": "" if base is None else rows[base].name, "tasks": ordered})
    return found
