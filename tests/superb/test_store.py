"""Complete or absent; checked when opened; made again where damaged."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from speechft import files
from speechft.errors import SpeechFTError
from speechft.superb import store as module
from speechft.superb.store import FeatureStore, Key, Layout, check_budget

KEY = Key("hubert-raw-abc", "data", "frames", "float32")
ROWS = [3, 5, 2, 4, 1]
LAYOUT = Layout(ROWS, 2, 4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "FRAMES_BYTES_PER_SHARD", 8 * LAYOUT.row_bytes(KEY))
    monkeypatch.setattr(module, "POOLED_ITEMS_PER_SHARD", 2)


class Maker:
    """Deterministic features, and a note of what was asked for."""

    def __init__(self, fail_at: int | None = None, rows=ROWS, dtype=np.float32) -> None:
        self.calls: list[list[int]] = []
        self.fail_at, self.rows, self.dtype = fail_at, rows, dtype

    def item(self, number: int) -> np.ndarray:
        return np.random.default_rng(number).normal(size=(self.rows[number], 2, 4)).astype(self.dtype)

    def __call__(self, items: list[int]) -> list[np.ndarray]:
        if self.fail_at == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append(items)
        return [self.item(number) for number in items]


def check(features, maker=None) -> None:
    maker = maker or Maker()
    for number in range(len(ROWS)):
        np.testing.assert_array_equal(features.rows(number), maker.item(number))


def test_what_goes_in_comes_out(tmp_path):
    maker, seen = Maker(), []
    features = FeatureStore(tmp_path).open(KEY, LAYOUT, maker, progress=lambda *counts: seen.append(counts))
    check(features)
    assert maker.calls == [[1], [3, 0], [2, 4]]  # longest first, eight rows at most
    assert seen == [(1, 5), (3, 5), (5, 5)]
    rows, counts = features.gather([4, 1])
    assert counts == [1, 5] and rows.shape == (6, 2, 4)
    assert isinstance(features.maps[0], np.memmap)
    again = Maker()
    check(FeatureStore(tmp_path).open(KEY, LAYOUT, again))
    assert again.calls == []


def test_an_interrupted_extraction_goes_on(tmp_path):
    store = FeatureStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.open(KEY, LAYOUT, Maker(fail_at=2))
    assert store.missing_bytes(KEY, LAYOUT) == 3 * LAYOUT.row_bytes(KEY)
    maker = Maker()
    check(store.open(KEY, LAYOUT, maker))
    assert maker.calls == [[2, 4]]


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "json"])
def test_a_damaged_shard_is_made_again(tmp_path, damage):
    store, told = FeatureStore(tmp_path), []
    store.open(KEY, LAYOUT, Maker())
    path = store.folder(KEY) / "00001.bin"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[17] ^= 1
        path.write_bytes(bytes(content))
    elif damage == "truncate":
        path.write_bytes(bytes(content[:-4]))
    elif damage == "delete":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    maker = Maker()
    check(store.open(KEY, LAYOUT, maker, say=told.append))
    assert maker.calls == [[3, 0]] and len(told) == 1 and "00001.bin" in told[0]


def test_everything_in_the_key_matters(tmp_path):
    folders = {
        FeatureStore(tmp_path).folder(replace(KEY, **change))
        for change in ({}, {"upstream": "x"}, {"data": "x"}, {"kind": "pooled"}, {"dtype": "float16"}, {"version": 0})
    }
    assert len(folders) == 6


def test_half_precision_and_pooled(tmp_path):
    half = FeatureStore(tmp_path).open(replace(KEY, dtype="float16"), LAYOUT, Maker())
    assert half.rows(1).dtype == np.float16
    np.testing.assert_allclose(half.rows(1), Maker().item(1), atol=2e-3)
    maker = Maker(rows=[1] * 5)
    pooled = FeatureStore(tmp_path).open(replace(KEY, kind="pooled"), Layout([1] * 5, 2, 4), maker)
    assert [len(call) for call in maker.calls] == [2, 2, 1]
    check(pooled, maker)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(path, flush):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = FeatureStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_settle", full)
        with pytest.raises(SpeechFTError, match="disk is full"):
            store.open(KEY, LAYOUT, Maker())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    check(store.open(KEY, LAYOUT, Maker()))


def test_features_that_are_not_finite_are_refused(tmp_path):
    def broken(items):
        return [np.full((ROWS[item], 2, 4), np.nan, np.float32) for item in items]

    with pytest.raises(SpeechFTError, match="not finite"):
        FeatureStore(tmp_path).open(KEY, LAYOUT, broken)
    assert list(tmp_path.rglob("*.bin")) == []


def test_the_budget(tmp_path):
    check_budget(tmp_path / "new", 10**9, 10**6, 2, "pr")
    with pytest.raises(
        SpeechFTError, match=r"features for pr take 3.00 GB .* budget_gb=2; they have to be stored: set budget_gb=4"
    ):
        check_budget(tmp_path, 3 * 10**9, 0, 2, "pr")
    with pytest.raises(SpeechFTError, match="the disk has"):
        check_budget(tmp_path, 10**18, 10**18, 1e12, "pr")
