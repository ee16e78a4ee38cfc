"""Batches by seconds and by count, on utterances of every length."""

import numpy as np
import pytest
from layouts import noise

from speechft.data.check import load_corpus
from speechft.data.corpora import load_cuts
from speechft.data.loader import Batches

SECONDS = [0.2 + 0.05 * number for number in range(60)] + [9.0]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Parts of one file, of 0.2 to 3.15 s, and one of 9 s."""
    folder = tmp_path_factory.mktemp("lengths")
    noise(folder / "long.wav", seconds=10.0)
    rows = [f"u{number}\tlong.wav\t0\t{seconds}" for number, seconds in enumerate(SECONDS)]
    (folder / "table.tsv").write_text("id\tpath\tstart\tend\n" + "\n".join(rows) + "\n")
    return [{"kind": "tsv", "path": str(folder / "table.tsv"), "text": None}]


def _plan(source, seconds, size, buckets, epoch=0, seed=0):
    plan = Batches(load_cuts(source)[0], seconds, size, buckets, seed=seed).plan(epoch)
    assert sorted(cut.id for batch in plan for cut in batch) == sorted(f"u{number}" for number in range(61))
    return plan


def test_by_seconds_a_batch_holds_utterances_of_similar_length(source):
    plan = _plan(source, 8.0, None, 6)
    for batch in plan:
        durations = [cut.duration for cut in batch]
        assert len(batch) * max(durations) <= 8.0 or durations == [9.0]  # what is longer than a batch is one of its own
    spread = [max(cut.duration for cut in batch) - min(cut.duration for cut in batch) for batch in plan]
    mixed = [max(cut.duration for cut in batch) - min(cut.duration for cut in batch)
             for batch in _plan(source, 8.0, None, 1)]  # fmt: skip
    assert sum(spread) / len(spread) < 0.5 * sum(mixed) / len(mixed)
    sizes = {len(batch) for batch in plan}
    assert max(sizes) >= 3 * min(sizes)


def test_by_count(source):
    plan = _plan(source, None, 16, 1)
    assert sorted(len(batch) for batch in plan) == [13, 16, 16, 16]


def test_by_both_neither_is_passed(source):
    for batch in _plan(source, 8.0, 4, 4):
        assert len(batch) <= 4
        assert len(batch) * max(cut.duration for cut in batch) <= 8.0 or len(batch) == 1


def test_what_is_longer_than_a_batch_is_said(source):
    corpus = load_corpus({"train": source, "batch_seconds": 8.0}, loud=False)
    assert corpus.summary["train"]["longer_than_a_batch"] == 1
    assert corpus.lines()[0].endswith("; 1 longer than data.batch_seconds, each a batch of its own")


def test_long_and_short_ones_come_in_another_order_with_every_seed_and_epoch(source):
    """lhotse alone takes the buckets in one order, for all seeds, and comes to the short ones last."""

    def ranks(seed, epoch):
        lengths = [sum(cut.duration for cut in batch) / len(batch) for batch in _plan(source, None, 4, 6, epoch, seed)]
        return np.argsort(np.argsort(lengths))

    orders = [ranks(seed, epoch) for seed in range(8) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)
    shortest = min(map(len, orders))
    table = np.array([order[:shortest] for order in orders])
    assert np.abs(np.corrcoef(table)[np.triu_indices(len(table), 1)]).mean() < 0.35  # 1 without the shuffle
    third = shortest // 3
    assert abs(table[:, :third].mean() - table[:, -third:].mean()) < 0.15 * shortest
