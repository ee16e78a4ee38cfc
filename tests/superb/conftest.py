"""Fixtures: the tiny corpora, a small random upstream, a configuration that names them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small import superb_settings
from speaker_corpora import make_librimix
from tiny_corpora import (
    RECIPES,
    Corpora,
    make_librispeech,
    make_speech_commands,
    make_voxceleb,
    save_upstream,
)
from tiny_mixtures import make_libri2mix, make_voicebank, stand_ins
from tiny_pooled import make_fluent_commands, make_iemocap, make_quesst
from tiny_snips import make_snips


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models are tiny: on a busy machine more threads wait for one another far longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def scores_of_sound():
    """SE's packages, or something in their place."""
    made = stand_ins()
    yield
    for name in made:
        del sys.modules[name]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """Shared and read-only. Clips are shorter than SID's crop, noise is as long as KS's: nothing random."""
    root = tmp_path_factory.mktemp("corpora")
    make_librispeech(root / "ls")
    make_voxceleb(root / "vox")
    make_speech_commands(root / "sc", root / "sc_test")
    make_librimix(root / "mix")
    make_snips(root / "snips")
    make_fluent_commands(root / "fsc")
    make_iemocap(root / "iemocap")
    make_quesst(root / "quesst14Database")
    make_voicebank(root / "voicebank")
    make_libri2mix(root / "libri2mix")
    return Corpora(root)


@pytest.fixture(scope="session")
def upstream_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_upstream(tmp_path_factory.mktemp("upstreams") / "tiny", seed=0)


@pytest.fixture(scope="session")
def upstream(upstream_folder: Path):
    from speechft.upstreams.load import load_upstream

    return load_upstream(upstream_folder)


@pytest.fixture
def configuration(corpora: Corpora, tmp_path: Path):
    """A function: overrides of root keys, `recipe` for the tasks -> a composed eval.yaml for the tiny corpora."""

    def make(recipe: dict | None = None, **keys) -> dict:
        cfg = {**superb_settings("device=cpu"), "out": str(tmp_path / "out"), "store": str(tmp_path / "store")}
        cfg["data"].update(corpora.data)
        for task, small in RECIPES.items():
            known = {key: value for key, value in (recipe or {}).items() if key in cfg["superb"][task]}
            cfg["superb"][task].update({**small, **known})
        cfg.update({"tasks": ["pr", "sid", "ks"], **keys})
        return cfg

    return make
