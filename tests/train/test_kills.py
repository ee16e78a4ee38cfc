"""kill -9 at random moments, again and again: nothing is lost, and the run ends in the same bits."""

import os
import random
import signal
import time

import pytest
import torch
from lives import ended, life
from safetensors.torch import load_file

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics


def _writing(out, before):
    """Whether a checkpoint is being written: the leftovers of earlier kills and what rotation removes do not count."""
    newest = max((int(path.name[5:]) for path in out.glob("checkpoints/step-*")), default=0)
    found = set(out.glob("checkpoints/.partial-step-*")) - before
    return any(int(path.name.split("-")[2]) > newest for path in found)


def kill_until_done(words, out, chance, kills):
    """Start the run again and again and kill it; returns how many kills fell into the writing of a checkpoint.

    Every other life is killed as soon as it is seen writing; the others after a random number of further steps, and a
    random while. What a kill leaves of the checkpoints must be readable each time, and no older than before.
    """
    during, newest = 0, 0
    for number in range(kills):
        left = set(out.glob("checkpoints/.partial-step-*"))
        child = life(words, out, out.parent / "said")
        started, deadline = _steps(out), time.monotonic() + 300
        wanted, writes = started + chance.randint(0, 2), number % 2 == 0 and chance.randint(1, 2)
        seen = False
        while ended(child) is None:
            assert time.monotonic() < deadline
            if writes:
                now = _writing(out, left)
                writes -= now and not seen
                seen = now
                if not writes and seen:
                    break
            elif _steps(out) >= wanted:
                time.sleep(chance.random() * 0.1)
                break
            time.sleep(0.001 if writes else 0.01)
        else:
            raise AssertionError(f"it must be killed before its end: {(out.parent / 'said').read_text()[-500:]}")
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        during += _writing(out, left)
        newest = _check_whole(out, newest)
        assert not (out / "finetuned").exists()
    return during


def _steps(out):
    return max((line["step"] for line in read_metrics(out / "metrics.jsonl")), default=0)


def _check_whole(out, before):
    """Every checkpoint under a final name is complete; none that was there is lost except by rotation."""
    steps = []
    for folder in out.glob("checkpoints/step-*"):
        assert read_json(folder / "state.json")["step"] == int(folder.name.removeprefix("step-"))
        load_file(folder / "learner.safetensors")
        torch.load(folder / "optimizer.pt", weights_only=True)
        steps.append(int(folder.name.removeprefix("step-")))
    newest = max(steps, default=0)
    assert newest >= before
    return newest


def _same(run, other):
    ours, theirs = (load_file(each.finetuned / "model.safetensors") for each in (run, other))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = [
        [{key: value for key, value in line.items() if key != "wall_seconds"} for line in read_metrics(each.metrics)]
        for each in (run, other)
    ]
    assert lines[0] == lines[1]


VARIANTS = {
    "workers, accumulation, average": ["data.workers=2", "trainer.accumulate=2", "trainer.ema=0.9"],
    "one batch a step, many evaluations": ["trainer.eval_every=3", "trainer.patience=90", "trainer.finetuned=best"],
    "kept CNN": ["data.workers=1", "trainer.keep_cnn=memory", "trainer.gradient_checkpointing=true"],
    "regular": ["strategy=regular", "data.workers=0", "trainer.optimizer=adamw"],
}


def _words(train_words, variant, steps):
    """Epochs of 8 batches: kills fall into the middle of epochs, and into both phases."""
    return [*train_words, f"trainer.steps={steps}", "strategy.freeze_fraction=0.3", "data.batch_size=3",
            "trainer.checkpoint_every=2", "trainer.eval_every=10", *VARIANTS[variant]]  # fmt: skip


def test_killed_mid_epoch_with_workers_accumulation_and_average(train_words, tmp_path):
    words = _words(train_words, "workers, accumulation, average", 14)
    whole = finetune(words, tmp_path / "whole")
    kill_until_done(words, tmp_path / "killed", random.Random(0), kills=4)
    _same(finetune(words, tmp_path / "killed"), whole)


def test_a_scheduler_that_asks_every_process_gets_a_checkpoint(train_words, tmp_path):
    """SIGTERM reaches the reading processes, too: they must not end before the step does. Until then nobody else can
    train in the same folder."""
    words = [*_words(train_words, "workers, accumulation, average", 1000), "trainer.checkpoint_every=1000"]
    child = life(words, tmp_path / "run", tmp_path / "said")
    while _steps(tmp_path / "run") < 2:
        assert ended(child) is None, (tmp_path / "said").read_text()
        time.sleep(0.01)
    with pytest.raises(SpeechFTError, match="is being trained by another process; wait for it, or choose another"):
        finetune(words, tmp_path / "run")
    os.killpg(child, signal.SIGTERM)
    os.waitpid(child, 0)
    said = (tmp_path / "said").read_text()
    assert "Interrupted" in said, said
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f"Interrupted: interrupted after step {folder.name.removeprefix('step-')}; the same command goes on" in said


@pytest.mark.slow
def test_at_least_fifty_kills_lose_nothing(train_words, tmp_path, capsys):
    kills = during = 0
    for number, variant in enumerate(VARIANTS):
        folder = tmp_path / str(number)
        words = _words(train_words, variant, 60)
        whole = finetune(words, folder / "whole")
        during += kill_until_done(words, folder / "killed", random.Random(number), kills=14)
        kills += 14
        _same(finetune(words, folder / "killed"), whole)
    with capsys.disabled():
        print(f"\n{kills} kills, {during} of them while a checkpoint was being written; nothing was lost")
    assert kills >= 50 and during >= 10
