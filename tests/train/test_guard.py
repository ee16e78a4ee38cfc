"""What a run is kept from: models that never moved, diverged checkpoints, other data than it began with."""

import json
import shutil

import pytest
import torch

from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.ctc import CtcTask
from speechft.train import evaluation
from speechft.train.finetune import finetune
from speechft.train.guard import NanGuard
from speechft.train.metrics import read_metrics


@pytest.fixture(scope="module")
def words(train_words):
    """Eight steps, the first two with the upstream frozen; an evaluation and a checkpoint after each."""
    return [*train_words, "trainer.steps=8", "strategy.freeze_fraction=0.25", "trainer.checkpoint_every=1",
            "trainer.eval_every=1", "trainer.keep=100"]  # fmt: skip


@pytest.fixture(scope="module")
def stopped(words, tmp_path_factory):
    """A run that stopped after four of its steps."""
    run = finetune(words, tmp_path_factory.mktemp("guard") / "run")
    shutil.rmtree(run.finetuned)
    for step in range(5, 9):
        shutil.rmtree(run.checkpoints / f"step-{step}")
    return run


def _copy(run, place):
    shutil.copytree(run.folder, place)
    return place


def _nan_at(monkeypatch, steps):
    """The loss is NaN at these steps (counted from 1)."""
    original, calls = CtcTask.step, []

    def step(self, upstream, batch):
        calls.append(batch)
        loss, figures = original(self, upstream, batch)
        return (loss * float("nan") if len(calls) in steps else loss), figures

    monkeypatch.setattr(CtcTask, "step", step)


def test_skipped_steps_are_counted_and_a_missed_checkpoint_is_made_up_for(words, tmp_path, monkeypatch):
    _nan_at(monkeypatch, {4, 5})
    run = finetune([*words, "trainer.checkpoint_every=4", "trainer.keep_best=false"], tmp_path / "run")
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-6", "step-8"}  # 4 was skipped, and 5
    lines = read_metrics(run.metrics)
    assert [line.get("skipped_steps", 0) for line in lines if "loss" in line] == [0, 0, 0, 1, 2, 2, 2, 2]
    assert lines[-1]["event"] == "end" and lines[-1]["skipped_steps"] == 2


def test_an_evaluation_after_a_skipped_step_is_never_the_best(words, tmp_path, monkeypatch):
    """At step 3 the upstream is still θ0; whatever its score, it is not chosen."""
    told = iter([9.0, 9.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    monkeypatch.setattr(CtcTask, "score", lambda *_: [])
    monkeypatch.setattr(CtcTask, "summary", lambda *_: {"per": next(told)})
    _nan_at(monkeypatch, {3})
    run = finetune([*words, "trainer.finetuned=best"], tmp_path / "run")
    assert read_metrics(run.metrics)[-1]["finetuned_step"] == 4


def test_an_upstream_that_never_moved_is_no_result(words, tmp_path, monkeypatch):
    _nan_at(monkeypatch, set(range(3, 9)))
    with pytest.raises(SpeechFTError, match="every step after the unfreeze was skipped"):
        finetune(words, tmp_path / "run")
    assert not (tmp_path / "run" / "finetuned").exists()


def test_a_changed_configuration_starts_the_count_anew():
    guard = NanGuard(3, loud=False)
    guard.bad(1, float("nan"))
    guard.bad(2, float("nan"))
    same, other = NanGuard(3, loud=False), NanGuard(3, loud=False)
    same.restore(guard.state(), overruled=False)
    other.restore(guard.state(), overruled=True)
    assert (same.in_row, other.in_row, other.total) == (2, 0, 2)
    with pytest.raises(SpeechFTError, match=r"3 steps in a row gave a non-finite loss; lower trainer.lr"):
        same.bad(3, float("nan"))
    other.bad(3, float("nan"))


def test_labels_and_data_must_be_those_it_began_with(words, stopped, tmp_path):
    out = _copy(stopped, tmp_path / "labels")
    state = out / "checkpoints" / "step-4" / "state.json"
    saved = json.loads(state.read_text())
    vocabulary = saved["task"]["vocabulary"]
    state.write_text(json.dumps({**saved, "task": {**saved["task"], "vocabulary": vocabulary[::-1]}}))
    with pytest.raises(UsageError, match=r"the labels of .* have changed since it was started; bring them back"):
        finetune(words, out)
    state.write_text(json.dumps({**saved, "corpora": {"train": {"sha256": "0", "utterances": 24}}}))
    with pytest.raises(
        UsageError, match=r"the training data of .* have changed since it was started \(24 utterances, but others"
    ):
        finetune(words, out)
    assert finetune([*words, "allow_changed_config=true"], out).finished


def test_the_hash_of_a_corpus_sees_labels_order_and_lengths(librispeech):
    from speechft.data.corpora import load_cuts
    from speechft.train.check import corpus_mark

    def cuts(**more):
        return list(load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean", **more}])[0])

    assert corpus_mark(cuts()) == corpus_mark(cuts()) != corpus_mark(cuts()[::-1])
    relabelled = cuts()
    relabelled[3].supervisions[0].text = "ANOTHER"
    assert len({corpus_mark(one)["sha256"] for one in (cuts(), cuts(limit=7), cuts(speeds=[1.1]), relabelled)}) == 4


@pytest.mark.parametrize("change", [["strategy=lora"], ["trainer.optimizer=muon"], ["task.hidden=16"]])
def test_a_change_that_no_checkpoint_can_follow_costs_nothing(words, stopped, tmp_path, change):
    out = _copy(stopped, tmp_path / "run")
    before = (out / "config.yaml").read_text()
    with pytest.raises(
        SpeechFTError, match=r"is of another model or optimizer .*; such a change .* choose another --out"
    ):
        finetune([*words, *change, "allow_changed_config=true"], out)
    assert (out / "config.yaml").read_text() == before
    assert finetune(words, out).finished


def test_fewer_steps_than_are_done(words, stopped, tmp_path):
    out = _copy(stopped, tmp_path / "run")
    with pytest.raises(UsageError, match=r"is at step 4 already; give more trainer.steps"):
        finetune([*words, "trainer.steps=3", "allow_changed_config=true"], out)


def test_out_of_memory_in_an_evaluation_and_in_an_update(words, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(CtcTask, "score", full)
        with pytest.raises(SpeechFTError, match=r"in an evaluation with a batch of \d+ .*; lower trainer.eval_seconds"):
            finetune(words, tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", full)
        with pytest.raises(SpeechFTError, match="at step 1, by the optimizer's state of all weights; a smaller batch"):
            finetune(words, tmp_path / "b")


def test_evaluations_batch_by_eval_seconds(words, tmp_path, monkeypatch):
    sizes = []
    original = evaluation.in_order

    def in_order(dev, seconds, *more):
        sizes.append(seconds)
        return original(dev, seconds, *more)

    monkeypatch.setattr(evaluation, "in_order", in_order)
    finetune([*words, "trainer.steps=3", "trainer.eval_seconds=5"], tmp_path / "run")
    assert set(sizes) == {5.0}
