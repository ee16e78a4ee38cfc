"""What SID and ASV share: data sets that list VoxCeleb1's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.superb.tasks.utterance import UtteranceTask


class VoxCeleb1Task(UtteranceTask):
    """The expert keeps a data set a split, whose `dataset` is a list of paths."""

    def dataset(self, expert: Any, split: str) -> Any:
        return getattr(expert, f"{split}_dataset")

    def files(self, expert: Any, split: str) -> list[Path]:
        return [Path(path) for path in self.dataset(expert, split).dataset]

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "voxceleb1")[0]
