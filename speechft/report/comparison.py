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
        origins: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            if row.pretrained:
                origins.setdefault(row.entries[0].weights, []).append(number)
        single = next(iter(origins.values())) if len(origins) == 1 else []
        bases: list[int | None] = []
        for number, row in enumerate(self.rows):
            if row.pretrained:
                bases.append(None)
            elif row.lineage:
                bases.append(self._nearest(number, origins.get(row.lineage.pretrained, [])))
                if bases[-1] is None:
                    name = self.lineages.pretrained.get(row.lineage.pretrained, "its pre-trained upstream")
                    self.notes.append(
                        f"{row.name} started from {name}, which was not scored: "
                        f"speechft eval superb {name} gives the row to compare with"
                    )
            else:
                bases.append(self._nearest(number, single))
        alone = all(one is None for one in bases) and not any(row.lineage for row in self.rows)
        if alone and len(self.rows) > 1:
            self.notes.append("no row is known as the pre-trained upstream of another: choose one with --base")
        return bases

    def _nearest(self, number: int, candidates: list[int]) -> int | None:
        """Of an upstream scored by several recipes, the row with most scores that this one's can be compared with."""
        ours = self.rows[number].scores

        def fitting(other: int) -> int:
            common = ours.keys() & self.rows[other].scores.keys()
            return sum(not self._changed(number, other, key) for key in common)

        return max(candidates, key=fitting, default=None)

    def _mark_recipes(self) -> None:
        """Cells whose recipe is not that of the row they are compared with (or of the column's first row)."""
        for one in self.columns:
            with_score = [number for number, row in enumerate(self.rows) if one.key in row.scores]
            for number in with_score:
                base = self.bases[number]
                against = base if base in with_score and base is not None else with_score[0]
                changed = self._changed(number, against, one.key)
                if changed:
                    text = f"{one.title.partition(',')[0]}: {'; '.join(changed)} ({self.rows[against].name})"
                    self.marks[number, one.key] = self._letter(text)

    def _changed(self, number: int, against: int, key: str) -> list[str]:
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
