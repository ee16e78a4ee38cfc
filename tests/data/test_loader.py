"""The order of batches follows from the seed, and any place in it can be found again."""

import copy
import itertools
import os
import shutil
import signal

import pytest
import torch

from speechft.data import loader
from speechft.data.corpora import load_cuts
from speechft.data.loader import Batches, digest, in_order, take
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


@pytest.mark.parametrize("world", [2, 3, 8])
def test_processes_share_one_stream_across_the_ends_of_epochs(librispeech, world):
    """What `world` processes read in a step is what one reads in `world` steps, and all write down the same place."""
    cuts = _cuts(librispeech)
    steps = 30 // world
    one = Batches(cuts, None, 4, 1, seed=0)  # 6 batches an epoch
    alone = _ids(take(one, steps * world))
    several = [Batches(cuts, None, 4, 1, seed=0, rank=rank, world=world) for rank in range(world)]
    shares = [_ids(take(batches, steps)) for batches in several]
    assert [ids for step in zip(*shares, strict=True) for ids in step] == alone
    assert {tuple(batches.state().items()) for batches in several} == {tuple(one.state().items())}
    again = Batches(cuts, None, 4, 1, seed=0, rank=world - 1, world=world)
    again.restore(several[0].state())
    whole = Batches(cuts, None, 4, 1, seed=0, rank=world - 1, world=world)
    assert _ids(take(again, 5)) == _ids(take(whole, steps + 5))[steps:]


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
        assert "Traceback" not in str(caught.value) and "an integer is required" not in str(caught.value)


@pytest.mark.parametrize("reader", ["training", "evaluation"])
def test_a_signal_while_readers_start_does_not_end_them(reader, librispeech, monkeypatch):
    """SIGTERM comes before a reading process could say that it ignores it; the process that trains still hears it."""
    undisturbed, cuts, heard = loader._undisturbed, _cuts(librispeech), []

    def struck(worker):
        os.kill(os.getpid(), signal.SIGTERM)
        undisturbed(worker)

    monkeypatch.setattr(loader, "_undisturbed", struck)
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("here"))
    try:
        if reader == "training":
            batches = take(Batches(cuts, None, 4, 2, seed=0, workers=2), 2)
        else:
            batches = list(in_order(cuts, 4.0, workers=2))
        assert batches and not heard
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["here"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_errors_cross_process_boundaries():
    """Copying uses what sending to another process uses."""
    for error in (SpeechFTError("a", "b"), UsageError("c"), MissingExtraError("p", "e", "x")):
        again = copy.copy(error)
        assert type(again) is type(error) and str(again) == str(error) and again.mend == error.mend


def test_digests_tell_waveforms_apart(librispeech):
    batches = take(Batches(_cuts(librispeech), None, 4, 1, seed=0, workers=1, digests=True), 12)
    found = [(name, wave) for batch in batches for name, wave in zip(batch.digests, batch.waves, strict=True)]
    for (one, a), (other, b) in itertools.combinations(found, 2):
        assert (one == other) == torch.equal(a, b)
    name, wave = found[0]
    assert digest(wave.clone()) == name != digest(wave + 1e-6)
