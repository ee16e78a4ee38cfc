"""`speechft report`: everything about finished evaluations, as numbers; `page.py` turns them into text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechft.errors import SpeechFTError, UsageError
from speechft.figures import checked_formats
from speechft.files import read_json, sha256_json, write_json, write_text
from speechft.report.bootstrap import DRAWS, interval
from speechft.report.choices import read_choices
from speechft.report.collect import Score
from speechft.report.columns import place
from speechft.report.comparison import Comparison, verdict
from speechft.report.drift import learned, read_analyses, runs_of
from speechft.report.lineage import Lineages
from speechft.report.published import DEFAULT_REFERENCE, Reference, published_rows, read_reference, superb_s
from speechft.report.recipes import off_official, other_corpus, recipe
from speechft.report.rows import collect
from speechft.report.surroundings import described_runs, environment
from speechft.runs import find_run
from speechft.versions import versions


def make_report(
    paths: Sequence[str | Path] = (),
    out: str | Path | None = None,
    base: str | None = None,
    reference: str | Path = DEFAULT_REFERENCE,
    published: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
    plots: Sequence[str] = ("png",),
) -> dict[str, Any]:
    """Read evaluations, compare them, and write `report.html`, `report.md`, `report.json` and the plots.

    Args:
        paths: runs, folders of results, or folders of one model's results; none is the latest run.
        out: where to write; None is the folder that the first path belongs to.
        base: the row that differences are against; None is each model's own pre-trained upstream.
        reference: of SUPERB_S: a name or a file (`published.read_reference`).
        published: whether to put published scores beside ours.
        draws, seed: of the bootstrap.
        plots: formats of the plots beside the report, of `png`, `pdf`, `svg`; the page has its own.

    Returns:
        What `report.json` holds, with the text of `report.md` under `markdown`.

    Raises:
        UsageError: a path, a base or a reference that is not there.
        SpeechFTError: no finished evaluation.
    """
    if draws < 100:
        raise UsageError(f"{draws} draws are too few for an interval", "give at least 100; 2000 is the default")
    formats = checked_formats(plots)
    chosen = read_reference(reference)
    lineages = Lineages()
    places = [Path(one).expanduser().resolve() for one in paths] or [find_run(None).folder]
    found = collect(places, lineages, base)
    compared = Comparison(found.rows, lineages, base, draws, seed)
    notes = found.notes + compared.notes
    runs = runs_of(found.rows, places)
    report = {
        **_Numbers(compared, chosen).all(published), "choices": read_choices(runs, notes),
        "drift": read_analyses(runs, notes, found.rows),
        "layer_weights": learned(found.rows, compared.bases), "runs": described_runs(runs),
        "environment": environment(found.rows),
    }  # fmt: skip
    folder = Path(out).expanduser().resolve() if out else _home(found.home.expanduser().resolve(), notes)
    report["notes"] = list(dict.fromkeys(notes))
    from speechft.report.drawings import draw
    from speechft.report.html import html
    from speechft.report.page import page

    pictures = draw(report, folder, formats)
    for plot, picture in zip(report["plots"], pictures, strict=False):  # those over α come first
        plot["file"] = picture["file"]
    report["pictures"] = [{key: one[key] for key in one if key != "svg"} for one in pictures]
    report["folder"] = str(folder)
    text = page(report)
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", html(report, pictures))
    return {**report, "markdown": text}


def _home(folder: Path, notes: list[str]) -> Path:
    """The folder that results are in, or one in it where that has a report of another command."""
    file = folder / "report.json"
    try:
        others = file.is_file() and "columns" not in read_json(file)
    except SpeechFTError:  # broken: nothing to keep
        others = False
    if not others:
        return folder
    notes.append(f"{folder} keeps the report that speechft demo wrote there; this one is in {folder / 'report'}")
    return folder / "report"


def _departures(record: Mapping[str, Any]) -> list[str]:
    """Why a score cannot stand beside published ones."""
    corpus = other_corpus(record)
    return [*([corpus] if corpus else []), *off_official(record)]


class _Numbers:
    """`report.json` from compared rows."""

    def __init__(self, compared: Comparison, reference: Reference) -> None:
        self.compared, self.reference = compared, reference
        self.rows, self.columns = compared.rows, compared.columns

    def all(self, published: bool) -> dict[str, Any]:
        """Everything but the notes."""
        keys, left_out = self._superb_columns()
        official = {}
        for one in self.columns:
            phrases = [phrase for score in self._scores(one.key) for phrase in _departures(score.record)]
            official[one.task] = list(dict.fromkeys(phrases))
        return {
            "columns": [vars(one) for one in self.columns],
            "rows": [{**self._row(number), "superb_s": self._superb(number, keys)} for number in range(len(self.rows))],
            "published": self._published(keys) if published else [],
            "superb_s": {
                "reference": self.reference.name, "about": self.reference.about, "columns": keys,
                "tasks": list(dict.fromkeys(key.partition(".")[0] for key in keys)), "left_out": left_out,
                "points": {key: list(self.reference.points[key]) for key in keys},
                "unchecked": [key for key in keys if key in self.reference.unchecked],
                "sources": [str(one) for one in self.reference.sources],
            },
            "footnotes": self.compared.footnotes,
            "off_official": {task: phrases for task, phrases in official.items() if phrases},
            "bootstrap": {"draws": self.compared.draws, "seed": self.compared.seed, "level": 0.95},
            "plots": self._plots(),
            "versions": versions(),
        }  # fmt: skip

    def _scores(self, key: str) -> list[Score]:
        """One of each row in a column."""
        return [row.scores[key][0] for row in self.rows if key in row.scores]

    def _row(self, number: int) -> dict[str, Any]:
        row, base = self.rows[number], self.compared.bases[number]
        known = row.lineage
        return {
            "name": row.name, "models": row.models, "results": [str(entry.folder) for entry in row.entries],
            "upstreams": [dict(entry.identity) for entry in row.entries], "pretrained": row.pretrained,
            "alpha": known.alpha if known else 0.0 if row.pretrained else None, "run": known.run if known else None,
            "base": None if base is None else self.rows[base].name,
            "cells": {one.key: self._cell(number, one.key) for one in self.columns if one.key in row.scores},
        }  # fmt: skip

    def _cell(self, number: int, key: str) -> dict[str, Any]:
        scores = self.rows[number].scores[key]
        values = [score.value for score in scores]
        samples = self.compared.samples.get((number, key))
        return {
            "mean": self.compared.value(number, key), "values": values, "seeds": [score.seed for score in scores],
            "spread": (max(values) - min(values)) / 2 if len(values) > 1 else None,
            "interval": None if samples is None else interval(samples),
            "test_utterances": None if scores[0].utterances is None else len(scores[0].utterances),
            "recipe": recipe(scores[0].record), "lr": [score.record.get("lr") for score in scores],
            "mark": self.compared.marks.get((number, key)), "difference": self.compared.difference(number, key),
        }  # fmt: skip

    def _superb_columns(self) -> tuple[list[str], dict[str, str]]:
        """The columns of the tasks that every row has in full, and why the other tasks are left out."""
        tasks: dict[str, list[str]] = {}
        for one in self.columns:
            tasks.setdefault(one.task, []).append(one.key)
        keys, left_out = [], {}
        for task, own in tasks.items():
            wanted = [key for key in self.reference.points if key.partition(".")[0] == task]
            without = [row.name for row in self.rows if any(key not in row.scores for key in wanted)]
            heard = [other_corpus(score.record) for key in own for score in self._scores(key)]
            if not wanted:
                left_out[task] = f"the reference {self.reference.name} has no points for {', '.join(own)}"
            elif any(heard):
                left_out[task] = next(one for one in heard if one)
            elif without:
                left_out[task] = f"no score of {', '.join(without)}"
            else:
                keys += wanted
        return sorted(keys, key=place), left_out

    def _superb(self, number: int, keys: list[str]) -> dict[str, Any] | None:
        if not keys:
            return None
        base = self.compared.bases[number]
        marks = sorted({self.compared.marks[number, key] for key in keys if (number, key) in self.compared.marks})
        value, drawn = self._total(number, keys), self._drawn(number, keys)
        result: dict[str, Any] = {
            "value": value, "interval": None if drawn is None else interval(drawn), "marks": marks,
            "points": {key: self._total(number, [key]) for key in keys}, "difference": None,
        }  # fmt: skip
        if base is not None and not marks:
            theirs, ends = self._drawn(base, keys), None
            paired = all(self.compared.paired(number, base, key) for key in keys)
            if paired and drawn is not None and theirs is not None:
                ends = interval(drawn - theirs)
            difference = value - self._total(base, keys)
            result["difference"] = {"mean": difference, "interval": ends, "verdict": verdict(ends, True)}
        return result

    def _total(self, number: int, keys: list[str]) -> float:
        return float(superb_s({key: self.compared.value(number, key) for key in keys}, self.reference, keys))

    def _drawn(self, number: int, keys: list[str]) -> np.ndarray | None:
        samples = self.compared.samples
        if any((number, key) not in samples for key in keys):
            return None
        return np.asarray(superb_s({key: samples[number, key] for key in keys}, self.reference, keys))

    def _published(self, keys: list[str]) -> list[dict[str, Any]]:
        """Published rows, in the columns that SUPERB's own corpora have a score in."""
        rows = []
        heard = {
            one.key for one in self.columns if any(not other_corpus(score.record) for score in self._scores(one.key))
        }
        for row in published_rows():
            values = {one.key: row.values[one.key] for one in self.columns if one.key in row.values.keys() & heard}
            if values:
                score = superb_s(row.values, self.reference, keys) if keys and set(keys) <= values.keys() else None
                rows.append({
                    "name": row.name, "values": values, "superb_s": score, "note": row.note,
                    "sources": {key: vars(row.sources[key]) for key in values},
                })  # fmt: skip
        return rows

    def _plots(self) -> list[dict[str, Any]]:
        """A plot for each pre-trained upstream: the scores of what was made from it, over α."""
        plots: list[dict[str, Any]] = []
        for origin, name in self.compared.lineages.pretrained.items():
            lines = self._lines(origin)
            curves: dict[str, dict[str, dict[float, list[float]]]] = {}
            ends: dict[str, dict[str, dict[float, tuple[float, float]]]] = {}
            for one in self.columns:
                for label, numbers in lines.items():
                    points = self._points(numbers, one.key)
                    if len(points) > 1:
                        curves.setdefault(one.key, {})[label] = points
                        ends.setdefault(one.key, {})[label] = self._ends(numbers, one.key)
            if curves:
                plots.append({"title": f"{name}, fine-tuned and merged with weight α, frozen, scored",
                              "file": "alpha.png", "curves": curves, "intervals": ends, "upstream": name})  # fmt: skip
        if len(plots) > 1:
            for number, plot in enumerate(plots, 1):
                plot["file"] = f"alpha-{number}.png"
        return plots

    def _lines(self, origin: str) -> dict[str, list[int]]:
        """The lines of a plot: label -> numbers of rows. One family's rows are several lines where they were scored by
        several recipes or heard in several ways, each beside the upstream's row of its own kind."""
        lines: dict[tuple[str, int | None, str], list[int]] = {}
        for number, row in enumerate(self.rows):
            if row.lineage and row.lineage.pretrained == origin:
                base = self.compared.origins[number]
                key = row.lineage.family, base, sha256_json(row.entries[0].hearing)
                lines.setdefault(key, [] if base is None else [base]).append(number)
        labelled: dict[str, list[int]] = {}
        runs = {key: self._run(numbers) for key, numbers in lines.items()}
        families = {key[0]: run for key, run in runs.items()}
        for (family, base, hearing), numbers in lines.items():
            label = runs[family, base, hearing]
            if list(families.values()).count(label) > 1:
                label += f" ({family[:4]})"
            if sum(one == family for one, _, _ in lines) > 1:
                label += f", {self.rows[numbers[-1]].name if base is None else f'against {self.rows[base].name}'}"
            labelled[label if label not in labelled else f"{label} ({len(labelled) + 1})"] = numbers
        return labelled

    def _run(self, numbers: Sequence[int]) -> str:
        known = self.rows[numbers[-1]].lineage
        return known.run if known else ""

    def _on_curve(self, numbers: Sequence[int], key: str) -> Iterator[tuple[float, int]]:
        """α and number of each row of a line that has a score by the recipe of the line's upstream."""
        base = self.compared.origins[numbers[-1]]
        for number in (one for one in numbers if key in self.rows[one].scores):
            known = self.rows[number].lineage
            if number == base:
                yield 0.0, number
            elif base is not None and key in self.rows[base].scores:
                if known and not self.compared.changed(number, base, key):
                    yield known.alpha, number
            elif known and (number, key) not in self.compared.marks:
                yield known.alpha, number

    def _points(self, numbers: Sequence[int], key: str) -> dict[float, list[float]]:
        points: dict[float, list[float]] = {}
        for alpha, number in self._on_curve(numbers, key):
            points.setdefault(alpha, []).extend(score.value for score in self.rows[number].scores[key])
        return points

    def _ends(self, numbers: Sequence[int], key: str) -> dict[float, tuple[float, float]]:
        """95 % intervals; where several rows share an α, the first one's."""
        ends: dict[float, tuple[float, float]] = {}
        for alpha, number in self._on_curve(numbers, key):
            samples = self.compared.samples.get((number, key))
            known = None if samples is None else interval(samples)
            if known is not None:
                ends.setdefault(alpha, known)
        return ends
