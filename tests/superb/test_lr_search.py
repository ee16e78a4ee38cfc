"""Several learning rates at once: each as it would be alone, the best on dev tested, a hopeless one given up."""

from __future__ import annotations

import pytest
import torch

from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json
from speechft.superb import compat
from speechft.superb.assemble import assemble
from speechft.superb.evaluate import evaluate
from speechft.superb.heads import twin
from speechft.superb.quiet import quiet
from speechft.superb.store import FeatureStore
from speechft.superb.tasks import get_task

RATES = [1e-2, 1e-3, 3e-2]


def losses_of(name, rates, configuration, corpora, upstream, folder):
    compat.install()
    cfg = configuration({"steps": 8, "eval_step": 4})
    task, losses = get_task(name), []
    with quiet(folder / "log"), task.environment(folder):
        run = assemble(
            task, cfg["superb"][name], corpora.data, upstream, FeatureStore(folder / "store"), folder / str(len(rates)),
            seed=3, device=torch.device("cpu"), frames_dtype="float32", batch_seconds=4.0, budget_gb=1.0,
        )  # fmt: skip
        run.rates = rates
        run.on_loss = lambda step, loss: losses.append(loss)
        outcome = run.run()
    return losses, outcome


@pytest.mark.parametrize("name", ["pr", "sid", "ks", "asr"])
def test_each_rate_is_as_it_would_be_alone(name, configuration, corpora, upstream, tmp_path):
    together, outcome = losses_of(name, RATES, configuration, corpora, upstream, tmp_path)
    alone = [losses_of(name, [lr], configuration, corpora, upstream, tmp_path) for lr in RATES]
    for number, (losses, single) in enumerate(alone):
        assert together[number :: len(RATES)] == losses
        assert outcome.search[number] == {"lr": RATES[number], "dev": single.dev}
    best = next(single for _, single in alone if single.lr == outcome.lr)
    assert (outcome.metrics, outcome.dev, outcome.weights) == (best.metrics, best.dev, best.weights)
    assert not best.search


def test_the_best_on_dev_is_tested_and_every_rate_is_kept(configuration, upstream, tmp_path):
    cfg = configuration({"steps": 12, "eval_step": 4}, lr=[1e-7, 1e-2], tasks=["pr"])
    results = {engine: evaluate([upstream], engine=engine, cfg=cfg)[0] for engine in ("fast", "s3prl")}
    for result in results.values():
        tried = {one["lr"]: one["dev"].get("per", float("inf")) for one in result["lr_search"]}
        assert set(tried) == {1e-7, 1e-2} and result["lr"] == min(tried, key=tried.get) == 1e-2
        assert result["dev"]["per"] == tried[1e-2] < tried[1e-7]
    assert read_json(tmp_path / "out" / upstream_name(upstream) / "pr.json")["lr"] == 1e-2


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_rates_without_a_best_score_keep_their_last_one(engine, configuration, upstream):
    """At these rates WER stays at 100 or more, which s3prl's expert never calls a best score."""
    cfg = configuration({"steps": 2, "eval_step": 1}, lr=[1e-8, 1e-9], tasks=["asr"], engine=engine)
    result = evaluate([upstream], cfg=cfg)[0]
    tried = {one["lr"]: one["dev"] for one in result["lr_search"]}
    assert all(dev["wer"] >= 1.0 and dev["step"] == 2 for dev in tried.values())
    assert result["dev"] == tried[result["lr"]] and result["dev"]["wer"] == min(dev["wer"] for dev in tried.values())


def upstream_name(upstream):
    from speechft.superb.sources import model_name

    return model_name(upstream)


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_a_rate_that_is_nan_is_given_up_and_the_others_go_on(engine, configuration, upstream):
    cfg = configuration({"steps": 6}, lr=[1e30, 1e-2], tasks=["sid"], engine=engine)
    result = evaluate([upstream], cfg=cfg)[0]
    assert result["lr"] == 1e-2 and result["lr_search"][0]["stopped"].startswith("the loss of sid is NaN at step")
    with pytest.raises(SpeechFTError, match=r"no learning rate of sid works: the loss of sid is NaN"):
        evaluate([upstream], cfg={**cfg, "lr": [1e30, 1e29]})


@pytest.mark.parametrize("task", ["sid", "pr", "asv"])
def test_a_rate_that_is_nan_after_its_best_score_is_given_up_too(task, configuration, upstream, monkeypatch):
    """As in s3prl's loop, where it would have ended in an error; its best state is no result."""
    from speechft.superb.fast import FastRun

    forward = FastRun._forward

    def late(self, name, head, *args):
        loss = forward(self, name, head, *args)
        return loss * float("nan") if name == "train" and head.lr == 1e-2 and self.step >= 4 else loss

    cfg = configuration({"steps": 6, "eval_step": 2, "log_step": 2}, lr=[1e-2, 1e-9], tasks=[task])
    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", late)
        result = evaluate([upstream], cfg=cfg)[0]
    first, second = result["lr_search"]
    assert result["lr"] == 1e-9 and "is NaN" in first["stopped"] and first["dev"] and "stopped" not in second
    assert result["test_utterances"] > 0


def test_a_task_that_fails_does_not_stop_the_others(configuration, upstream, tmp_path, capsys):
    cfg = configuration({"steps": 6}, tasks=["sid", "ks", "pr"])
    cfg["superb"]["sid"]["lr"] = cfg["superb"]["pr"]["lr"] = 1e30
    with pytest.raises(SpeechFTError, match=r"2 of 3 evaluations failed, first: the loss of sid is NaN"):
        evaluate([upstream], cfg=cfg)
    assert "sid: failed: the loss of sid is NaN" in capsys.readouterr().err
    assert (tmp_path / "out" / upstream_name(upstream) / "ks.json").is_file()


def test_a_killed_search_goes_on(configuration, upstream, monkeypatch, tmp_path):
    from speechft.superb.fast import FastRun

    plain = evaluate([upstream], cfg=configuration({"steps": 9}, lr=RATES, tasks=["ks"]))[0]
    cfg = configuration({"steps": 9}, lr=RATES, tasks=["ks"], out=str(tmp_path / "second"))
    forward, calls = FastRun._forward, []

    def killed(self, name, *args):
        calls.append(name)
        if calls.count("train") == 3 * 8 - 1:
            raise KeyboardInterrupt
        return forward(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate([upstream], cfg=cfg)
    assert next((tmp_path / "second").rglob("state.pt")).is_file()
    again = evaluate([upstream], cfg=cfg)[0]
    for key in ("metrics", "dev", "lr", "lr_search", "layer_weights"):
        assert again[key] == plain[key], key


@pytest.mark.parametrize("lr", [[], 0, "much", [1e-2, -1], float("inf")])
def test_rates_that_are_none(lr, configuration, upstream):
    with pytest.raises(UsageError, match=r"superb.sid.lr=.*; give a positive number"):
        evaluate([upstream], cfg=configuration(lr=lr, tasks=["sid"]))


def test_twins_share_no_weights():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module.words = ["a"]
    other = twin(module)
    with torch.no_grad():
        other[0].weight.zero_()
    assert module[0].weight.abs().sum() > 0 and other.words is module.words
