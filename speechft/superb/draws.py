"""How many random crops of a file are kept (`crops`), also where the recipe leaves it open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.data.audio import SAMPLE_RATE
from speechft.superb.items import Item, Split

_NEARLY_NEW = 32
"""With so many of a file, keeping them scored what a new one at every step scored (docs/superb.md)."""


@dataclass(frozen=True)
class Crops:
    """What `crops` and `crop_hours` of a recipe say.

    Attributes:
        number: of each file; None leaves it to `of`.
        taken: waveforms that the training takes of the set in all; None for no end.
        hours: audio that the crops may be in all where more of a file are kept than cover it.
    """

    number: int | None = 1
    taken: int | None = None
    hours: float = 0.0

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Crops:
        """Of a recipe."""
        number = settings.get("crops", 1)
        taken = math.prod(int(settings.get(key, 1)) for key in ("steps", "accumulate", "batch_size"))
        return cls(None if number is None else int(number), taken, float(settings.get("crop_hours", 0.0)))

    def of(self, cropped: Sequence[tuple[int, int]], files: int) -> list[int]:
        """Crops of each file that is cropped.

        Where no number is given: so many that together they are as long as the file, at least two; and up to 32 while
        the crops of all files are at most `hours` of audio. Never more than the next power of two above how often the
        training takes a file (so that a few steps more do not change it).

        Args:
            cropped: length of each such file and of its crop, in samples.
            files: of the set, those that are not cropped too.
        """
        if self.number is not None:
            return [self.number] * len(cropped)
        once = sum(kept for _, kept in cropped)
        affordable = min(_NEARLY_NEW, int(self.hours * 3600 * SAMPLE_RATE // max(1, once)))
        most = math.inf if self.taken is None else 2 ** math.ceil(math.log2(max(1.0, self.taken / max(1, files))))
        return [int(min(most, max(2, affordable, math.ceil(samples / kept)))) for samples, kept in cropped]


def drawn(split: str, files: Sequence[tuple[Path, int, int, bool]], crops: Crops) -> Split:
    """A split's items: one of each file, or its crops.

    Args:
        files: path, length, length of the crop (both in samples), whether it is drawn at random.
    """
    draws = iter(crops.of([(samples, kept) for _, samples, kept, random in files if random], len(files)))
    items: list[Item] = []
    first = [0]
    for index, (path, _, kept, random) in enumerate(files):
        items += [Item(index, draw, path, kept, random) for draw in range(next(draws) if random else 1)]
        first.append(len(items))
    return Split(split, items, first)
