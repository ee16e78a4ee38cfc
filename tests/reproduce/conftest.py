"""The makers of tiny corpora that other tests have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _folder in ("data", "superb"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`data.NAME` -> path of a stand-in in the official layout."""
    from stand_ins import make_corpora

    return make_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Choice of `configs/upstream` -> a very small model of twelve layers, in the family's own file format."""
    from stand_ins import make_checkpoints

    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"))
