"""Where a batch's features come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechft.superb import batches
from speechft.superb.store import FeatureStore, Key, Layout

KEY = Key("upstream", "data", "pooled", "float32")


@pytest.mark.parametrize("fill", [1, 3, 7, 100])
def test_all_rows_are_on_the_device_in_their_order(fill, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_FILL_ITEMS", fill)
    rows = np.random.default_rng(0).normal(size=(7, 1, 2, 4)).astype(np.float32)
    features = FeatureStore(tmp_path).open(KEY, Layout([1] * 7, 2, 4), lambda items: [rows[item] for item in items])
    table = batches._table(features, torch.device("cpu"))
    np.testing.assert_array_equal(table.numpy(), rows[:, 0])


def test_how_much_is_kept(monkeypatch):
    assert batches.resident_bytes(torch.device("cpu")) == 2 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 << 30, 24 << 30))
    assert batches.resident_bytes(torch.device("cuda:1")) == 10 << 30
