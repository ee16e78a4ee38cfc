"""Shards made on several devices, by several processes, and through kills, full disks and damage."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from listener import Listener

from speechft import files
from speechft.errors import SpeechFTError, UsageError
from speechft.files import claimed
from speechft.superb import extract, shards, store
from speechft.superb.evaluate import evaluate
from speechft.superb.extract import encode_together
from speechft.superb.fast import FastRun
from speechft.superb.settings import resolve_devices
from speechft.superb.store import FeatureStore, Key, Layout

KEY = Key("hubert-raw-abc", "data", "pooled", "float32")
LAYOUT = Layout([1] * 12, 2, 4)
SAME = ("metrics", "dev", "layer_weights", "loss", "data")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "POOLED_ITEMS_PER_SHARD", 2)
    monkeypatch.setattr(store, "FRAMES_BYTES_PER_SHARD", 60_000)


def features(items: list[int]) -> list[np.ndarray]:
    return [np.random.default_rng(item).normal(size=(1, 2, 4)).astype(np.float32) for item in items]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ several devices


def test_computes_work_side_by_side(tmp_path):
    """Every shard waits until another one is under way: with one thread this would time out."""
    together = threading.Barrier(3, timeout=20)
    calls: dict[str, list[list[int]]] = {"a": [], "b": [], "c": []}

    def compute(name):
        def call(items):
            together.wait()
            calls[name].append(items)
            return features(items)

        return call

    seen = []
    FeatureStore(tmp_path / "many").open(
        KEY, LAYOUT, compute("a"), lambda *counts: seen.append(counts), others=[compute("b"), compute("c")]
    )
    assert [len(made) for made in calls.values()] == [2, 2, 2]
    assert seen == [(2 * number, 12) for number in range(1, 7)]
    FeatureStore(tmp_path / "one").open(KEY, LAYOUT, features)
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_an_error_on_one_device_ends_all_and_keeps_what_is_done(tmp_path):
    done: list[list[int]] = []
    working_began, broken_began = threading.Event(), threading.Event()

    def broken(items):
        broken_began.set()
        working_began.wait(20)
        raise SpeechFTError("the second device is gone")

    def working(items):
        working_began.set()
        broken_began.wait(20)
        time.sleep(0.05)
        done.append(items)
        return features(items)

    with pytest.raises(SpeechFTError, match="second device"):
        FeatureStore(tmp_path).open(KEY, LAYOUT, working, others=[broken])
    assert 1 <= len(done) < 5
    assert LAYOUT.total_bytes(KEY) - FeatureStore(tmp_path).missing_bytes(KEY, LAYOUT) == 2 * len(done) * 32


@pytest.mark.parametrize("task", ["sid", "pr"])
def test_two_devices_store_the_same_bits_as_one(task, configuration, upstream, tmp_path, monkeypatch):
    """SID's crops are random here: they are drawn from Python's one generator, whoever reads."""
    threads, reading, together = set(), set(), []

    def watched(*args):
        threads.add(threading.current_thread())
        time.sleep(0.01)
        return encode_together(*args)

    def slowly(*args):
        reading.add(threading.current_thread())
        together.append(len(reading))
        time.sleep(0.002)
        wave = read(*args)
        reading.remove(threading.current_thread())
        return wave

    read = extract._read
    monkeypatch.setattr(extract, "encode_together", watched)
    monkeypatch.setattr(extract, "_read", slowly)
    recipe = {"crop_seconds": 0.4}
    one = evaluate([upstream], [task], cfg=configuration(recipe), progress=Listener())[0]
    assert len(threads) == 1
    cfg = configuration(recipe, devices="cpu,cpu,cpu", store=str(tmp_path / "other"), out=str(tmp_path / "second"))
    several = evaluate([upstream], [task], cfg=cfg, progress=Listener())[0]
    assert len(threads) > 1 and max(together) == 1
    assert content(tmp_path / "other") == content(tmp_path / "store") != {}
    assert {key: several[key] for key in SAME} == {key: one[key] for key in SAME}


def test_which_devices(monkeypatch):
    assert resolve_devices("cpu") == ("cpu",)
    assert resolve_devices("auto", ["cpu", "cpu"]) == resolve_devices("auto", "cpu, cpu") == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_devices("auto") == ("cuda:0", "cuda:1", "cuda:2")
    assert resolve_devices("cuda") == ("cuda",) and resolve_devices("cuda:1") == ("cuda:1",)
    assert resolve_devices("auto", ["cuda:1", "cuda:2"]) == ("cuda:1", "cuda:2")
    with pytest.raises(UsageError, match="different kinds"):
        resolve_devices("auto", ["cuda:0", "cpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_devices("auto") == ("cuda",)


# ---------------------------------------------------------------------------------------------- several processes


def _other_process(root: Path, note: Path) -> None:
    def compute(items):
        with note.open("a") as file:
            file.write(f"{os.getpid()} {items}\n")
        time.sleep(0.1)
        return features(items)

    FeatureStore(root).open(KEY, LAYOUT, compute)


def fork(function, *args) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def test_two_processes_share_the_work(tmp_path):
    note = tmp_path / "note"
    both = [fork(_other_process, tmp_path / "shared", note) for _ in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    lines = [line.split(" ", 1) for line in note.read_text().splitlines()]
    assert len(lines) == len({items for _, items in lines}) == 6, "no shard was made twice"
    assert len({process for process, _ in lines}) == 2, "both made some"
    FeatureStore(tmp_path / "alone").open(KEY, LAYOUT, features)
    assert content(tmp_path / "shared") == content(tmp_path / "alone")


def test_what_another_process_is_making_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_WAIT_SECONDS", 0.02)
    folder, said, calls = FeatureStore(tmp_path).folder(KEY), [], []
    FeatureStore(tmp_path / "made").open(KEY, LAYOUT, features)
    source = FeatureStore(tmp_path / "made").folder(KEY)

    def compute(items):
        calls.append(items)
        return features(items)

    def finish() -> None:
        for name in ("00002.bin", "00002.json"):
            shutil.copyfile(source / name, folder / name)

    with claimed(folder / ".lock-00002") as ours:
        assert ours

        def heard(text: str) -> None:
            said.append(text)
            finish()

        FeatureStore(tmp_path).open(KEY, LAYOUT, compute, say=heard)
    assert len(said) == 1 and "another process is making" in said[0]
    assert len(calls) == 5 and [4, 5] not in calls
    assert content(folder) == content(source)


def test_a_lock_goes_with_its_process(tmp_path):
    lock = tmp_path / "lock"

    def hold() -> None:
        with claimed(lock):
            (tmp_path / "held").touch()
            time.sleep(60)

    process = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with claimed(lock) as ours:
        assert not ours
    process.kill()
    process.join()
    assert lock.exists()
    with claimed(lock) as ours:
        assert ours
    assert not lock.exists()


# ------------------------------------------------------------------------------------------------------ accidents


def _killed(cfg: dict, upstream, where: str, moment: int) -> None:
    """An evaluation that SIGKILL ends: inside the writing of a shard, or at a step of the head's training."""
    count = 0

    def strike(file: Path | None = None) -> None:
        nonlocal count
        count += 1
        if count == moment:
            if file is not None:
                file.write_bytes(file.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "extraction":
        digest = shards.sha256_file

        def half_written(path):
            if path.name.startswith(".partial"):
                strike(path)
            return digest(path)

        shards.sha256_file = half_written
    else:
        forward = FastRun._forward

        def step(self, name, *args):
            strike()
            return forward(self, name, *args)

        FastRun._forward = step
    evaluate([upstream], cfg=cfg, progress=Listener())
    os._exit(0)


@pytest.mark.parametrize("task", ["sid", "pr"])
def test_kill_9(task, configuration, upstream, tmp_path):
    """At many moments of one evaluation, one after the other; what it ends with is as if it had never been killed."""
    recipe = {"steps": 12, "crop_seconds": 0.4}
    plain = evaluate([upstream], [task], cfg=configuration(recipe), progress=Listener())[0]
    cfg = configuration(recipe, tasks=task, out=str(tmp_path / "second"), store=str(tmp_path / "other"))
    shards_left = []
    # each run begins where the last was killed, so the moments count from there
    for where, moment in [("extraction", 1), ("extraction", 3), ("extraction", 2), *[("training", 11)] * 3]:
        process = fork(_killed, cfg, upstream, where, moment)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        shards_left.append(len(list((tmp_path / "other").rglob("*.bin"))))
    assert shards_left[:3] == [0, 2, 3] and shards_left[3] == len(list((tmp_path / "store").rglob("*.bin")))
    state = torch.load(next((tmp_path / "second").rglob("state.pt")), weights_only=True)
    assert 0 < state["step"] < 12
    resumed = evaluate([upstream], cfg=cfg, progress=Listener())[0]
    assert {key: resumed[key] for key in SAME} == {key: plain[key] for key in SAME}
    made = {name: value for name, value in content(tmp_path / "other").items() if ".partial-" not in name}
    assert made == content(tmp_path / "store")


def test_the_disk_fills_up_during_extraction(configuration, upstream, tmp_path, monkeypatch):
    """One line; finished shards stay; with room it goes on, making only the rest."""
    plain = evaluate([upstream], ["sid"], cfg=configuration(), progress=Listener())[0]
    cfg = configuration(tasks="sid", out=str(tmp_path / "second"), store=str(tmp_path / "other"))
    settle, left = files._settle, 7  # three shards of two files, and key.json

    def full(path, flush=True):
        nonlocal left
        left -= "other" in str(path)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        settle(path, flush)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_settle", full)
        with pytest.raises(SpeechFTError, match=r"^the disk is full while writing .*; free some space"):
            evaluate([upstream], cfg=cfg, progress=Listener())
    kept = content(tmp_path / "other")
    assert len([name for name in kept if name.endswith(".bin")]) == 3 and not [n for n in kept if "partial" in n]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "other").rglob("*.bin")}
    resumed = evaluate([upstream], cfg=cfg, progress=Listener())[0]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {key: resumed[key] for key in SAME} == {key: plain[key] for key in SAME}
    assert content(tmp_path / "other") == content(tmp_path / "store")


def test_damaged_shards_are_said_and_made_again(configuration, upstream, tmp_path):
    """A bit is flipped in every shard: no score is computed from it."""
    cfg = configuration(tasks="sid")
    plain = evaluate([upstream], cfg=cfg, progress=Listener())[0]
    before = content(tmp_path / "store")
    binaries = sorted((tmp_path / "store").rglob("*.bin"))
    for path in binaries:
        damaged = bytearray(path.read_bytes())
        damaged[random.Random(str(path)).randrange(len(damaged))] ^= 64
        path.write_bytes(bytes(damaged))
    listener = Listener()
    again = evaluate([upstream], cfg={**cfg, "out": str(tmp_path / "second")}, progress=listener)[0]
    assert listener.text.count("are damaged; they are made again") == len(binaries) > 3
    assert content(tmp_path / "store") == before
    assert {key: again[key] for key in SAME} == {key: plain[key] for key in SAME}
