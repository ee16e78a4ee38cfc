"""How s3prl's CTC corpora hand out elements: one by one, or as buckets of neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Buckets:
    """Elements `(path, token ids)` from the longest to the shortest label sequence.

    With `bucket_size` above 1, an element is a list of so many neighbours beginning there, so that a training batch
    holds utterances of similar length (s3prl/downstream/ctc/data.py, `create_dataset`). Equal lengths keep the order
    they were given in.

    Args:
        elements: in an order that does not depend on the file system.
        bucket_size: elements of a training batch.
        ascending: shortest first.
    """

    def __init__(self, elements: list[tuple[Path, list[int]]], bucket_size: int, ascending: bool) -> None:
        self.elements = sorted(elements, key=lambda element: len(element[1]), reverse=not ascending)
        self.bucket_size = bucket_size

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, index: int) -> Any:
        if self.bucket_size <= 1:
            return self.elements[index]
        # the last elements begin a bucket that would run past the end: they share the last full one
        start = max(0, min(index, len(self.elements) - self.bucket_size))
        return self.elements[start : start + self.bucket_size]
