"""Rows beside rows: which is compared with which, where recipes differ, and bootstrap replicates of every cell."""

from __future__ import annotations

import string
import zlib
from typing import Any

import numpy as np

from speechft.errors import UsageError
from speechft.report.bootstrap import DRAWS, interval, replicates
from speechft.report.columns import column, place
from speechft.report.lineage import Lineages
from speechft.report.recipes import differences, recipe
from speechft.report.rows import Row


class Comparison:
    """Rows and columns of a table, compared.

    Args:
        rows: the rows, in the table's order.
        lineages: where the models come from.
        base: the row that all others are compared with; None is each one's own pre-trained upstream.
        draws, seed: of the bootstrap.

    Attributes:
        columns: in SUPERB's order.
        origins: for each row, the number of its own pre-trained upstream's row, or None.
        bases: for each row, the number of the row it is compared with, or None.
        marks: cells whose recipe is another: (row, column key) -> letter of the footnote.
        footnotes: letter -> what differs.
        samples: (row, column key) -> `[draws]` bootstrap replicates in per cent.
        notes: what is missing, a line each.

    Raises:
        UsageError: no row is named `base`.
    """

    def __init__(
        self, rows: list[Row], lineages: Lineages, base: str | None = None, draws: int = DRAWS, seed: int = 0
    ) -> None:
        self.rows, self.lineages, self.draws, self.seed = rows, lineages, draws, seed
        self.notes: list[str] = []
        records = {key: scores[0] for row in rows for key, scores in row.scores.items()}
        columns = [column(one.task, one.metric, one.higher_better) for one in records.values()]
        self.columns = sorted(columns, key=lambda one: place(one.key))
        self.origins = self._origins()
        self.bases = self._bases(base)
        self._letters: dict[str, str] = {}
        self.marks: dict[tuple[int, str], str] = {}
        self.samples: dict[tuple[int, str], np.ndarray] = {}
        self._mark_recipes()
        self._draw()

    @property
    def footnotes(self) -> dict[str, str]:
        return {letter: text for text, letter in self._letters.items()}

    def _bases(self, wanted: str | None) -> list[int | None]:
        """For each row, the number of the row it is compared with."""
        if wanted is not None:
            for number, row in enumerate(self.rows):
                names = {row.name, *row.models, *(str(one.identity.get("name")) for one in row.entries)}
                if wanted in names:
                    return [None if other == number else number for other in range(len(self.rows))]
            raise UsageError(f"no row is named {wanted}", f"--base can be {', '.join(row.name for row in self.rows)}")
        bases = [None if row.pretrained else one for row, one in zip(self.rows, self.origins, strict=True)]
        for row, base in zip(self.rows, bases, strict=True):
            if row.pretrained or not row.lineage:
                continue
            if base is not None:
                self._note_hearing(row, self.rows[base])
            else:
                name = self.lineages.pretrained.get(row.lineage.pretrained, "its pre-trained upstream")
                self.notes.append(
                    f"{row.name} started from {name}, which was not scored: "
                    f"speechft eval superb {name} gives the row to compare with"
                )
        alone = all(one is None for one in bases) and not any(row.lineage for row in self.rows)
        if alone and len(self.rows) > 1:
            self.notes.append("no row is known as the pre-trained upstream of another: choose one with --base")
        return bases

    def _origins(self) -> list[int | None]:
        """For each row, the number of its own pre-trained upstream's; the only one there is, where that is unknown."""
        scored: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            if row.pretrained:
                scored.setdefault(row.entries[0].weights, []).append(number)
        single = next(iter(scored.values())) if len(scored) == 1 else []
        return [
            self._nearest(number, scored.get(row.lineage.pretrained, []) if row.lineage else single)
            if row.lineage or not row.pretrained else None
            for number, row in enumerate(self.rows)
        ]  # fmt: skip

    def _note_hearing(self, row: Row, base: Row) -> None:
        """Say it where a model and its upstream were not scored with the same input."""
        ours, theirs = row.entries[0].hearing, base.entries[0].hearing
        both = ours.keys() & theirs.keys()
        changed = differences({key: ours[key] for key in both}, {key: theirs[key] for key in both})
        if changed:
            self.notes.append(f"{row.name} heard its input otherwise than {base.name} ({'; '.join(changed)}): "
                              "that is in the difference too")  # fmt: skip

    def _nearest(self, number: int, candidates: list[int]) -> int | None:
        """Of an upstream scored several times, the row that hears as this one does and, of several, has most scores
        that this one's can be compared with."""
        ours, hearing = self.rows[number].scores, self.rows[number].entries[0].hearing

        def fitting(other: int) -> tuple[bool, int]:
            common = ours.keys() & self.rows[other].scores.keys()
            alike = self.rows[other].entries[0].hearing == hearing
            return alike, sum(not self.changed(number, other, key) for key in common)

        return max(candidates, key=fitting, default=None)

    def _mark_recipes(self) -> None:
        """Cells whose recipe is not that of the row they are compared with (or of the column's first row)."""
        for one in self.columns:
            with_score = [number for number, row in enumerate(self.rows) if one.key in row.scores]
            for number in with_score:
                base = self.bases[number]
                against = base if base in with_score and base is not None else with_score[0]
                changed = self.changed(number, against, one.key)
                if changed:
                    text = f"{one.title.partition(',')[0]}: {'; '.join(changed)} ({self.rows[against].name})"
                    self.marks[number, one.key] = self._letter(text)

    def changed(self, number: int, against: int, key: str) -> list[str]:
        """In what the recipes of two rows' cells differ, a phrase each."""
        ours, theirs = (recipe(self.rows[one].scores[key][0].record) for one in (number, against))
        return differences(ours, theirs)

    def _letter(self, text: str) -> str:
        count = len(self._letters)
        letters = string.ascii_lowercase
        new = letters[count] if count < 26 else f"{letters[count // 26 - 1]}{letters[count % 26]}"
        return self._letters.setdefault(text, new)

    def _draw(self) -> None:
        """Bootstrap replicates of every cell; rows of the same utterances share their draws."""
        for one in self.columns:
            groups: dict[tuple[str, ...], list[int]] = {}
            for number, row in enumerate(self.rows):
                scores = row.scores.get(one.key, [])
                for score in scores:
                    if score.why:
                        self.notes.append(f"no interval: {score.why}")
                found = [score.utterances for score in scores if score.utterances is not None]
                if scores and len(found) == len(scores) and len({each.names for each in found}) == 1:
                    groups.setdefault(found[0].names, []).append(number)
            seed = zlib.crc32(f"{self.seed}/{one.task}".encode())  # metrics of one task share their draws
            for numbers in groups.values():
                models = [
                    [score.utterances for score in self.rows[number].scores[one.key] if score.utterances is not None]
                    for number in numbers
                ]
                for number, values in zip(numbers, replicates(models, self.draws, seed), strict=True):
                    self.samples[number, one.key] = values

    def value(self, number: int, key: str) -> float:
        """A cell's mean over seeds, in per cent."""
        return float(np.mean([score.value for score in self.rows[number].scores[key]]))

    def paired(self, number: int, base: int, key: str) -> bool:
        """Whether two rows have draws of the same utterances."""
        ours, theirs = (self.rows[one].scores[key][0].utterances for one in (number, base))
        return (number, key) in self.samples and (base, key) in self.samples and (
            ours is not None and theirs is not None and ours.names == theirs.names
        )  # fmt: skip

    def difference(self, number: int, key: str) -> dict[str, Any] | None:
        """A cell against the row it is compared with; None where there is none, or its recipe is another."""
        base = self.bases[number]
        if base is None or key not in self.rows[base].scores or (number, key) in self.marks:
            return None
        ends = None
        if self.paired(number, base, key):
            ends = interval(self.samples[number, key] - self.samples[base, key])
        better = self.rows[number].scores[key][0].higher_better
        return {
            "mean": self.value(number, key) - self.value(base, key), "interval": ends, "verdict": verdict(ends, better)
        }  # fmt: skip


def verdict(ends: tuple[float, float] | None, higher_better: bool) -> str | None:
    """`better`, `worse` or `not clearly different`, from the interval alone; None where there is none."""
    if ends is None:
        return None
    low, high = ends if higher_better else (-ends[1], -ends[0])
    return "better" if low > 0 else "worse" if high < 0 else "not clearly different"
