"""A run whose α can be chosen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from speechft.runs import Run
from speechft.train.finetune import finetune


@pytest.fixture(scope="package")
def trained(train_words, tmp_path_factory):
    return finetune(train_words, tmp_path_factory.mktemp("runs") / "trained", latest=False)


@pytest.fixture
def run(trained, tmp_path):
    """A run of one's own."""
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "trained")))


@pytest.fixture
def undrawn(monkeypatch):
    """Without the picture, which takes longer than all else."""
    monkeypatch.setattr("speechft.choosing.choose.draw", lambda *_: None)
