"""Joint training as a task: each batch is one task's; all of them learn; a run resumes bit for bit."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_labelled import make_labelled

from speechft.config.compose import compose
from speechft.data.corpora import load_cuts
from speechft.data.joint import data_section
from speechft.data.loader import Batch, in_order, read_cut
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.build import build_task
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream

TASKS = "{ks: {weight: 0.5, share: 2, hidden: 32}, feeling: {task: er, hidden: 16, data: {batch_size: 6}}}"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    table = make_labelled(tmp_path_factory.mktemp("joint"), train=36, dev=12, words=1)
    return ["data=tsv", f"data.table={table}", "data.train_where={split: train}", "data.dev_where={split: dev}",
            "data.train_speakers=null", "data.dev_speakers=null", "data.batch_size=8", "data.workers=0",
            "trainer.device=cpu", "trainer.threads=1", "trainer.log_every=1"]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(words, tmp_path_factory):
    settings = compose("train", ["task=joint", f"task.tasks={TASKS}", *words])
    data = data_section(settings)
    train, dev = load_cuts(data["train"])[0], load_cuts(data["dev"])[0]
    task, upstream = build_task(settings["task"]), load_upstream("hubert_nano")
    torch.manual_seed(0)
    task.prepare(upstream, train, dev, tmp_path_factory.mktemp("joint"))
    return task.eval(), upstream.eval(), train, dev


def test_each_batch_is_its_tasks_with_its_weight(prepared):
    task, upstream, train, _ = prepared
    assert task.metric == "ks_accuracy" and task.higher_is_better and task.name == "ks+feeling"
    assert task.tasks["ks"].head.project.out_features == 32
    assert task.tasks["feeling"].classes == {"emotion": ["angry", "happy", "neutral"]}
    for name, weight in (("ks", 0.5), ("feeling", 1.0)):
        cuts = [cut for cut in train if cut.id.startswith(f"{name}:")][:4]
        batch = Batch([read_cut(cut) for cut in cuts], cuts)
        alone, _ = task.tasks[name].step(upstream, batch)
        loss, figures = task.step(upstream, batch)
        torch.testing.assert_close(loss, weight * alone)
        assert figures[f"{name}_loss"] == pytest.approx(float(alone.detach())) and f"{name}_accuracy" in figures
        task.zero_grad()
        loss.backward()
        touched = {key.split(".")[1] for key, value in task.named_parameters() if value.grad is not None}
        assert touched == {name}


def test_metrics_are_the_tasks_own(prepared):
    task, upstream, _, dev = prepared
    with torch.no_grad():
        together = task.evaluate(upstream, in_order(dev, 3.0))
        for name in ("ks", "feeling"):
            own = [cut for cut in dev if cut.id.startswith(f"{name}:")]
            alone = task.tasks[name].evaluate(upstream, in_order(own, 3.0))
            assert together[f"{name}_accuracy"] == pytest.approx(alone["accuracy"])
    assert together.keys() == {"ks_accuracy", "feeling_accuracy"}
    assert task.settings()["feeling"] == {"classes": {"emotion": ["angry", "happy", "neutral"]}}


def test_the_first_task_with_a_dev_set_says_which_model_is_best(words, tmp_path):
    """A metric that no evaluation gives would end the run at the first one after the unfreeze."""
    settings = compose("train", ["task=joint", f"task.tasks={TASKS}", *words])
    data = data_section(settings)
    train, dev = load_cuts(data["train"])[0], load_cuts([one for one in data["dev"] if one["task"] == "feeling"])[0]
    task, upstream = build_task(settings["task"]), load_upstream("hubert_nano")
    task.prepare(upstream, train, dev, tmp_path)
    assert task.metric == "feeling_accuracy" and task.higher_is_better
    few = dev.subset(first=3)
    with torch.no_grad():
        assert task.metric in task.eval().evaluate(upstream.eval(), in_order(few, 3.0))


@pytest.mark.slow
def test_both_tasks_learn_and_a_run_resumes_bit_for_bit(words, tmp_path):
    common = ["task=joint", f"task.tasks={TASKS}", "task.head_lr=5e-3", "trainer.lr=5e-4", *words]
    more = ["trainer.steps=200", "trainer.eval_every=200", "trainer.checkpoint_every=20"]
    run = finetune([*common, *more], tmp_path / "whole")
    lines = read_metrics(run.metrics)
    last = [line for line in lines if "dev_ks_accuracy" in line][-1]
    assert last["dev_ks_accuracy"] >= 50 and last["dev_feeling_accuracy"] >= 60, last
    assert {key for line in lines for key in line} >= {"ks_loss", "feeling_loss"}

    second = tmp_path / "second"
    with pytest.MonkeyPatch.context() as patch:
        from speechft.train import loop

        save = loop.checkpoint_files.save

        def stop_at_40(folder, step, *rest, **named):
            result = save(folder, step, *rest, **named)
            if step == 40:
                raise KeyboardInterrupt
            return result

        patch.setattr(loop.checkpoint_files, "save", stop_at_40)
        with pytest.raises(KeyboardInterrupt):
            finetune([*common, *more], second)
    again = finetune([*common, *more], second)
    one, two = (load_file(run.finetuned / "model.safetensors") for run in (run, again))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_mistakes_are_explained(words, tmp_path):
    with pytest.raises(SpeechFTError, match=r"task ks: utterance .* has no keyword"):
        settings = compose("train", ["task=joint", f"task.tasks={TASKS}", *words])
        cuts = load_cuts(data_section(settings)["train"])[0]
        for cut in cuts:
            cut.supervisions[0].custom = {"task": cut.supervisions[0].custom["task"]}
        build_task(settings["task"]).prepare(load_upstream("hubert_nano"), cuts, None, tmp_path)
    with pytest.raises(UsageError, match=r"task.tasks names no task"):
        build_task({"kind": "joint", "tasks": {}})
    with pytest.raises(UsageError, match=r"task.tasks.ks.head_lr: all heads learn at one rate; set task.head_lr"):
        build_task({"kind": "joint", "tasks": {"ks": {"head_lr": 1e-3}}})
    with pytest.raises(UsageError, match="has a dot"):
        build_task({"kind": "joint", "tasks": {"a.b": {"task": "sid"}}})
