"""The order of batches follows from the seed, and any place in it can be found again."""

import copy
import itertools
import shutil

import pytest
import torch

from speechft.data.corpora import load_cuts
from speechft.data.loader import Batches, in_order
from speechft.errors import MissingExtraError, SpeechFTError, UsageError


def _cuts(librispeech):
    return load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "train-clean-100"}])[0]


def _ids(batches):
    return [[cut.id for cut in batch.cuts] for batch in batches]


def test_an_epoch_holds_every_utterance_once(librispeech):
    cuts = _cuts(librispeech)
    plan = Batches(cuts, None, 5, 3, seed=0).plan(0)
    assert sorted(cut.id for batch in plan for cut in batch) == sorted(cut.id for cut in cuts)
    assert all(len(batch) <= 5 for batch in plan)


def test_the_order_follows_from_seed_and_epoch(librispeech):
    cuts = _cuts(librispeech)

    def order(seed, epoch):
        return [[cut.id for cut in batch] for batch in Batches(cuts, None, 4, 2, seed=seed).plan(epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_batches_by_seconds_stay_below_the_limit(librispeech):
    for batch in Batches(_cuts(librispeech), 2.5, None, 2, seed=0).plan(0):
        assert sum(cut.duration for cut in batch) <= 2.5 or len(batch) == 1


def test_any_place_can_be_found_again_with_and_without_workers(librispeech):
    cuts = _cuts(librispeech)
    whole = Batches(cuts, None, 4, 2, seed=3)
    stream = list(itertools.islice(iter(whole), 14))  # more than two epochs
    for used, workers in ((0, 0), (3, 2), (8, 0), (11, 2)):
        first = Batches(cuts, None, 4, 2, seed=3, workers=workers)
        list(itertools.islice(iter(first), used))
        again = Batches(cuts, None, 4, 2, seed=3, workers=workers)
        again.restore(first.state())
        rest = list(itertools.islice(iter(again), 14 - used))
        assert _ids(rest) == _ids(stream[used:])
        assert all(torch.equal(a, b) for x, y in zip(rest, stream[used:], strict=True)
                   for a, b in zip(x.waves, y.waves, strict=True))  # fmt: skip


def test_two_processes_share_an_epoch(librispeech):
    cuts = _cuts(librispeech)
    shares = [Batches(cuts, None, 4, 1, seed=0, rank=rank, world=2).plan(0) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])
    ids = [{cut.id for batch in share for cut in batch} for share in shares]
    assert not ids[0] & ids[1]


def test_in_order_reads_everything_once(librispeech):
    cuts = _cuts(librispeech)
    seen = [cut.id for batch in in_order(cuts, 3.0) for cut in batch.cuts]
    assert sorted(seen) == sorted(cut.id for cut in cuts)


def test_a_workers_error_is_the_same_line_as_without_workers(librispeech, tmp_path):
    shutil.copytree(librispeech / "dev-clean", tmp_path / "dev-clean")
    for path in (tmp_path / "dev-clean").rglob("*.flac"):
        path.write_bytes(path.read_bytes()[:2000])  # the headers are whole
    cuts = load_cuts([{"kind": "librispeech", "root": str(tmp_path), "split": "dev-clean"}])[0]
    for workers in (0, 1):
        with pytest.raises(SpeechFTError, match=r"^audio file .*\.flac cannot be read") as caught:
            next(iter(Batches(cuts, None, 2, 1, seed=0, workers=workers)))
        assert "Traceback" not in str(caught.value)


def test_errors_cross_process_boundaries():
    """Copying uses what sending to another process uses."""
    for error in (SpeechFTError("a", "b"), UsageError("c"), MissingExtraError("p", "e", "x")):
        again = copy.copy(error)
        assert type(again) is type(error) and str(again) == str(error) and again.mend == error.mend
