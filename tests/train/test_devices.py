"""Several processes of one run, over gloo: they train as one would, and speak with one voice."""

import os
import shutil
import signal
import socket
import sys
import time
import traceback

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from speechft.errors import SpeechFTError, UsageError
from speechft.runs import Run
from speechft.train import devices
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics


def several(world, folder, words, prepare=lambda rank: None):
    """`speechft train` in `world` processes that know of each other as torchrun's do; their exit codes and stderr.

    They are forked, so that nothing is imported again.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _one(rank, world, port, folder, words, prepare)
        children.append(child)
    codes = []
    for child in children:
        deadline = time.monotonic() + 200
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        codes.append(os.waitstatus_to_exitcode(ended[1]))
    return codes, [(folder / f"{rank}.err").read_text() for rank in range(world)]


def _one(rank, world, port, folder, words, prepare):
    code = 99
    try:
        sys.stderr = (folder / f"{rank}.err").open("w", buffering=1)
        sys.stdout = (folder / f"{rank}.out").open("w", buffering=1)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")  # fmt: skip
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        prepare(rank)
        from speechft.cli.main import main

        code = main(["train", *words])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.fixture(scope="module")
def words(train_words):
    """Dropout on, the unfreeze at step 3 of 8, two batches a step."""
    return [*train_words, "trainer.steps=8", "strategy.freeze_fraction=0.375", "trainer.keep=8", "data.batch_size=3",
            "trainer.checkpoint_every=4", "trainer.eval_every=4", "upstream.dropout=0.1"]  # fmt: skip


@pytest.fixture(scope="module")
def one(words, tmp_path_factory):
    return finetune([*words, "trainer.accumulate=2"], tmp_path_factory.mktemp("devices") / "one")


@pytest.fixture(scope="module")
def two(words, tmp_path_factory):
    """Without `--out`: every process would choose a dated folder of its own."""
    folder = tmp_path_factory.mktemp("devices")
    runs = folder / "runs"
    codes, said = several(2, folder, words, lambda rank: os.environ.update(SPEECHFT_RUNS=str(runs)) or time.sleep(rank))
    assert codes == [0, 0], said
    found = [path for path in runs.iterdir() if not path.is_symlink()]
    assert len(found) == 1
    return Run(found[0]), said, [(folder / f"{rank}.out").read_text() for rank in (0, 1)]


def _lines(run, key="loss"):
    return {line["step"]: line[key] for line in read_metrics(run.metrics) if key in line}


def test_two_processes_train_as_one_does_with_the_same_batches(one, two):
    """The same loss curve over the unfreeze, dropout included; the same evaluations; the same weights."""
    run = two[0]
    assert _lines(run).keys() == _lines(one).keys() == set(range(1, 9))
    assert np.allclose(list(_lines(run).values()), list(_lines(one).values()), rtol=2e-4)
    assert _lines(run, "seconds_of_audio") == _lines(one, "seconds_of_audio")
    assert _lines(run, "dev_per") == pytest.approx(_lines(one, "dev_per"), abs=2)
    ours, theirs = (load_file(each.finetuned / "model.safetensors") for each in (run, one))
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in theirs)


@pytest.mark.parametrize("task", ["{spin: {codewords: 8}}", "{spin: {codewords: 8}, pr: {hidden: 32}}"])
def test_spin_alone_and_beside_another_task_trains_as_one_does(task, train_words, tmp_path):
    """No process waits for the others inside a loss: at one step they may have batches of different tasks."""
    plain = [word for word in train_words if not word.startswith("task.")]
    lexicon = next(word for word in train_words if word.startswith("task.lexicon")).partition("=")[2]
    tasks = task.replace("32}", f"32, lexicon: {lexicon!r}}}")
    words = [*plain, "task=joint", f"task.tasks={tasks}", "trainer.steps=4",
             "strategy.freeze_fraction=0.5", "data.batch_size=3", "trainer.eval_every=4"]  # fmt: skip
    one = finetune([*words, "trainer.accumulate=2"], tmp_path / "one")
    codes, said = several(2, tmp_path / "two", [*words, "--out", str(tmp_path / "run")])
    assert codes == [0, 0], said
    two = Run(tmp_path / "run")
    assert _lines(two).keys() == _lines(one).keys() == set(range(1, 5))
    assert np.allclose(list(_lines(two).values()), list(_lines(one).values()), rtol=2e-4)


def test_hashes_by_phase_on_two_processes(one, two):
    marks, alone = ([line for line in read_metrics(run.metrics) if line.get("event")] for run in (two[0], one))
    assert [(mark["step"], mark["phase"], mark["event"]) for mark in marks] == [
        (0, "head", "phase"), (3, "full", "phase"), (8, "full", "end"),
    ]  # fmt: skip
    assert marks[0]["upstream_sha256"] == marks[1]["upstream_sha256"] == alone[0]["upstream_sha256"]
    assert marks[2]["upstream_sha256"] != marks[0]["upstream_sha256"]
    assert {mark["cnn_sha256"] for mark in [*marks, *alone]} == {alone[0]["cnn_sha256"]}


def test_only_the_first_speaks(two):
    _, said, results = two
    assert "dev per" in said[0] and "fine-tuned upstream" in said[0] and results[0].strip().endswith("finetuned")
    assert "speechft" not in said[1] and "step" not in said[1] and not results[1]


def test_another_number_of_processes_is_refused_and_can_be_overruled(words, two, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(two[0].folder, copy)
    shutil.rmtree(copy / "finetuned")
    shutil.rmtree(copy / "checkpoints" / "step-8")
    with pytest.raises(UsageError, match=r"by 2 processes, and now there are 1; .*accumulate=2 for steps of as many"):
        finetune(words, copy)
    run = finetune([*words, "trainer.accumulate=2", "allow_changed_config=true"], copy)
    assert np.allclose(list(_lines(run).values()), list(_lines(two[0]).values()), rtol=2e-4)


def test_an_error_of_one_ends_all_with_one_line(words, tmp_path):
    def prepare(rank):
        if rank == 1:
            from speechft.data import loader

            def unreadable(cut):
                raise SpeechFTError(f"audio file {cut.id} cannot be read", "replace it")

            loader.read_cut = unreadable

    codes, said = several(2, tmp_path, ["--out", str(tmp_path / "run"), *words], prepare)
    assert codes == [1, 1], said
    lines = [line for text in said for line in text.splitlines() if "error:" in line]
    assert len(lines) == 1 and lines[0].startswith("speechft: error: audio file"), said


def test_a_mistake_that_all_make_is_said_once(words, tmp_path):
    codes, said = several(2, tmp_path, ["--out", str(tmp_path / "run"), *words, "trainer.lr=-1"])
    assert codes == [2, 2]
    assert [text.count("trainer.lr") for text in said] == [1, 0]


def test_a_launcher_that_would_shard_the_model_is_refused(words, tmp_path, monkeypatch):
    """A file of `accelerate config` says so by these variables; batches of a step are divided by the loop alone."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert devices.start({"device": "cpu", "precision": "no"}).gradient_accumulation_steps == 1
    for kind in ("FSDP", "DEEPSPEED"):
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{kind}", "true")
            with pytest.raises(UsageError, match=f"told to use {kind}, and here every GPU holds the whole model"):
                finetune(words, tmp_path / kind)
            assert not (tmp_path / kind).exists()


def test_asking_one_stops_all_after_the_same_step(words, tmp_path):
    def prepare(rank):
        if rank == 1:
            from speechft.train.loop import Training

            original = Training._accumulate

            def accumulate(self, model, stream, step):
                if step == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
                return original(self, model, stream, step)

            Training._accumulate = accumulate

    words = ["--out", str(tmp_path / "run"), *words]
    codes, said = several(2, tmp_path, words, prepare)
    assert codes == [1, 1] and sum(text.count("interrupted after step 5") for text in said) == 1, said
    assert (tmp_path / "run" / "checkpoints" / "step-5").is_dir()
