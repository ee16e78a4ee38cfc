"""How many random crops are kept, and where none are."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from listener import Listener
from small import superb_settings
from speaker_corpora import make_verification
from test_exactness import settings_for
from tiny_corpora import make_voxceleb

from speechft.errors import UsageError
from speechft.superb import compat
from speechft.superb.assemble import build_modules, features_of_splits, plan_splits
from speechft.superb.draws import Crops
from speechft.superb.evaluate import evaluate
from speechft.superb.extract import Streamed
from speechft.superb.fast import FastRun
from speechft.superb.quiet import quiet
from speechft.superb.store import Features, FeatureStore
from speechft.superb.tasks import get_task

SECOND = 16_000
CROP = 8 * SECOND


def test_as_many_as_cover_the_file():
    cropped = [(seconds * SECOND, CROP) for seconds in (9, 16, 17, 145)]
    assert Crops(None).of(cropped, 10) == [2, 2, 3, 19]
    assert Crops(3).of(cropped, 10) == [3, 3, 3, 3] and Crops(None, 100, 10.0).of([], 10) == []


@pytest.mark.parametrize(("hours", "expected"), [(0.0, 2), (64 / 3600, 2), (72 / 3600, 3), (1.0, 32), (1e6, 32)])
def test_more_while_they_are_few_hours_of_audio(hours, expected):
    """Three files of 10 s: a crop of each is 24 s."""
    assert Crops(None, hours=hours).of([(10 * SECOND, CROP)] * 3, 5) == [expected] * 3


@pytest.mark.parametrize(("taken", "expected"), [(1, 1), (5, 1), (6, 2), (20, 4), (25, 8), (155, 32), (10**9, 32)])
def test_never_more_than_training_takes(taken, expected):
    """Of five files: so often each, up to the next power of two."""
    assert Crops(None, taken, 10.0).of([(10 * SECOND, CROP)] * 3, 5) == [expected] * 3


def test_voxceleb1_is_encoded_little_more_than_once():
    """The default at the corpus's size: 138 361 utterances, mean 8.2 s, from 4 s on."""
    lengths = (4 + np.random.default_rng(0).exponential(4.2, 138_361)) * SECOND
    cropped = [(int(length), CROP) for length in lengths if length > CROP]
    recipe = superb_settings()["superb"]["sid"]
    crops = Crops.read(recipe).of(cropped, len(lengths))
    encoded = sum(crops) * CROP + sum(length for length in lengths if length <= CROP)
    assert min(crops) == 2 and encoded / sum(lengths) < 1.3
    assert Crops.read(recipe).of(cropped[:100], 200) == [32] * 100  # of a small corpus, nearly new ones


def test_the_recipe(tmp_path, upstream):
    make_voxceleb(tmp_path / "vox", seconds=(0.3, 0.9))
    data, task = {"voxceleb1": str(tmp_path / "vox")}, get_task("sid")
    compat.install()
    for crops, most in ((None, 8), (3, 3)):  # 14 steps of 2 x 4 take each of 16 files 7 times
        settings = {**settings_for("sid"), "crop_seconds": 0.5, "crops": crops, "steps": 14}
        with quiet(tmp_path / "log"), task.environment(tmp_path):
            config = task.config(settings, data, tmp_path)
            _, expert = build_modules(task, config, upstream, tmp_path / "x", 0, torch.device("cpu"))
            split, _, _ = plan_splits(task, expert, upstream, settings, data, "float32")["train"]
        draws = {split.draws(item.index) for item in split.items if item.random}
        assert draws == {most}
    task.check({**data}, {**settings_for("sid"), "crops": None})
    for wrong in ({"crops": 0}, {"crop_hours": -1}):
        with pytest.raises(UsageError, match=rf"superb\.sid\.{next(iter(wrong))}="):
            task.check(data, {**settings_for("sid"), **wrong})


@pytest.fixture
def verification(tmp_path):
    return make_verification(tmp_path / "asv")


@pytest.mark.parametrize("budget", [1.0, 1e-9])
def test_what_is_not_stored_is_drawn_anew(budget, verification, upstream, tmp_path):
    compat.install()
    task = get_task("asv")
    settings = {**settings_for("asv"), "crop_seconds": 0.6, "crops": 1}
    device = torch.device("cpu")
    with quiet(tmp_path / "log"), task.environment(tmp_path):
        config = task.config(settings, verification, tmp_path)
        _, expert = build_modules(task, config, upstream, tmp_path / "x", 0, device)
        plans = plan_splits(task, expert, upstream, settings, verification, "float32")
        found = features_of_splits(
            task, expert, plans, settings, verification, upstream, FeatureStore(tmp_path / "store"), device, "float32",
            4.0, budget,
        )  # fmt: skip
        assert isinstance(found["train"], Features if budget == 1.0 else Streamed)
        for wanted in (True, False):
            number = next(n for n, item in enumerate(plans["train"][0].items) if item.random is wanted)
            random.seed(0)
            first, again = (found["train"].gather([number])[0] for _ in range(2))
            random.seed(0)
            repeated = found["train"].gather([number])[0]
            assert first.shape == again.shape and np.array_equal(first, repeated)
            assert np.array_equal(first, again) is not (wanted and budget < 1)
        first, again = (found["test"].gather([0])[0] for _ in range(2))
        assert np.array_equal(first, again)


def test_a_killed_training_draws_what_it_would_have_drawn(verification, configuration, upstream, monkeypatch, tmp_path):
    recipe = {"steps": 9, "crop_seconds": 0.6, "crops": 1}

    def cfg(out: str) -> dict:
        made = configuration(recipe, tasks=["asv"], budget_gb=1e-9, out=str(tmp_path / out))
        made["data"].update(verification)
        return made

    plain = evaluate([upstream], cfg=cfg("plain"), progress=Listener())[0]
    forward, count = FastRun._forward, 0

    def killed(self, name, *args):
        nonlocal count
        count += name == "train"
        if count == 8 * 2:
            raise KeyboardInterrupt
        return forward(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate([upstream], cfg=cfg("killed"), progress=Listener())
    resumed = evaluate([upstream], cfg=cfg("killed"), progress=Listener())[0]
    for key in ("metrics", "dev", "layer_weights"):
        assert resumed[key] == plain[key], key
