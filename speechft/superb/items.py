"""What features are stored of: a split's items.

An *item* is one waveform: a data set's element, or one of several draws of an element that s3prl crops at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Item:
    """One waveform.

    Attributes:
        index: position in the split's list of files (`Task.files`).
        draw: which of the random crops, 0 for an item that is not cropped.
        path: the audio file.
        samples: length in samples at 16 kHz, from the file's header; plans batches and sizes, is not relied upon.
        random: whether what is read depends on the draw.
    """

    index: int
    draw: int
    path: Path
    samples: int
    random: bool = False


@dataclass(frozen=True)
class Split:
    """A split's items; the draws of file `i` are items `first[i] ... first[i+1]-1`."""

    name: str
    items: list[Item]
    first: list[int]

    def draws(self, index: int) -> int:
        return self.first[index + 1] - self.first[index]
