"""Every strategy trains and improves, gives a plain folder, and resumes bit for bit."""

import json
import os
import signal
import time

import pytest
import torch
from lives import ended, life
from safetensors.torch import load_file

from speechft.config.locate import group_names
from speechft.strategies.build import build_strategy
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream

ADAPTED = ["strategy=dora", "strategy.adapter.dropout=0.1", "strategy.freeze_fraction=0.2", "strategy.layer_decay=0.7"]
HELD = ["strategy=feature_similarity", "strategy.l2=0.1", "strategy.layer_decay=0.7", "strategy.frozen_downstream=true"]


def _weights(run):
    return load_file(run.finetuned / "model.safetensors")


# What each needs besides the common settings: adapters more of them, a higher rate and more steps, since the upstream
# under them is random; more steps too where the CNN moves; a frozen head time to become worth following.
ADAPTERS = [
    "trainer.lr=5e-3", "trainer.steps=200", "strategy.adapter.rank=16",
    "strategy.adapter.targets=[query,key,value,output,feed_forward,projection]",
]  # fmt: skip
OWN = {
    "lora": ADAPTERS, "dora": ADAPTERS, "early": ["trainer.steps=250", "strategy.stop_fraction=0.8"],
    "regular": ["trainer.steps=250"], "l2": ["trainer.steps=250"],
    "frozen_downstream": ["strategy.freeze_fraction=0.3", "trainer.steps=240"],
}  # fmt: skip
QUICK = ("lora", "frozen_downstream")


@pytest.mark.parametrize(
    "strategy",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in group_names("strategy")],
)
def test_each_improves_its_metric_and_moves_the_upstream(strategy, train_words, tmp_path, upstream_folder, librispeech):
    """PER of a phone a word, on the speech that is learnt."""
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("ONE\tA\nTWO\tB\nTEN\tC\nSIX\tD\n")
    words = [
        "trainer.steps=100", "trainer.lr=2e-3", "task.head_lr=1e-2", "data.checks.duplicates=false",
        "upstream.dropout=0.0", "data.batch_size=8",
        f"task.lexicon={lexicon}", f"data.dev=[{{kind: librispeech, root: {librispeech}, split: train-clean-100}}]",
        "trainer.log_every=10", "trainer.eval_every=20", "trainer.checkpoint_every=100", f"strategy={strategy}",
    ]  # fmt: skip
    run = finetune([*train_words, *words, *OWN.get(strategy, [])], tmp_path / "run")
    lines = read_metrics(run.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    rates = [line["dev_per"] for line in lines if "dev_per" in line]
    assert losses[-1] < 0.6 * losses[0] and rates[-1] < 0.9 * rates[0], (losses, rates)
    before, after = load_file(upstream_folder / "model.safetensors"), _weights(run)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert json.loads((run.finetuned / "config.json").read_text())["model_type"] == "hubert"


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_finetuned_is_a_plain_folder(kind, train_words, tmp_path, upstream_folder):
    """transformers loads it, and it is the last checkpoint's adapters merged; all else is θ0's, bit for bit."""
    from transformers import HubertModel

    run = finetune([*train_words, f"strategy={kind}"], tmp_path / "run")
    model, report = HubertModel.from_pretrained(run.finetuned, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    before, after = load_file(upstream_folder / "model.safetensors"), _weights(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"encoder.layers.{layer}.attention.{which}_proj.weight" for layer in (0, 1) for which in "qv"}
    saved = load_file(run.checkpoints / "step-20" / "learner.safetensors")
    for name in changed:
        place = f"upstream.model.{name.removesuffix('.weight')}"
        weight = saved[f"{place}.base_layer.weight"]
        assert torch.equal(weight, before[name])
        weight = weight + 2 * saved[f"{place}.lora_B.default.weight"] @ saved[f"{place}.lora_A.default.weight"]
        if kind == "dora":
            weight = weight / weight.norm(dim=1, keepdim=True)
            weight = weight * saved[f"{place}.lora_magnitude_vector.default.weight"][:, None]
        assert torch.allclose(after[name], weight, atol=1e-6)
    assert model.config.hidden_size == 32


@pytest.mark.parametrize("words", [ADAPTED, HELD], ids=["adapted", "held"])
def test_a_run_that_breaks_off_resumes_bit_for_bit(words, train_words, tmp_path, monkeypatch):
    """Once in the head's phase, once after it; θ0, penalties and adapters come back by themselves."""
    whole = finetune([*train_words, *words], tmp_path / "whole")
    step, calls = torch.optim.Adam.step, []

    def breaking(self, *args, **kwargs):
        calls.append(1)
        if len(calls) in (3, 3 + 13):  # after 2 steps, and 12 after the restart
            raise MemoryError
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", breaking)
        for _ in range(2):
            with pytest.raises(MemoryError):
                finetune([*train_words, *words, "trainer.checkpoint_every=1"], tmp_path / "broken")
    resumed = finetune([*train_words, *words, "trainer.checkpoint_every=1"], tmp_path / "broken")
    assert len(calls) == 16
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole).values(), _weights(resumed).values(), strict=True))

    def comparable(run):
        return [
            {key: value for key, value in line.items() if key != "wall_seconds"} for line in read_metrics(run.metrics)
        ]

    assert comparable(whole) == comparable(resumed)


@pytest.mark.parametrize("strategy", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_kill_9_with_adapters(strategy, train_words, tmp_path):
    """Before the first checkpoint, which is at step 5, and behind others."""
    words = [*train_words, f"strategy={strategy}", "strategy.adapter.dropout=0.1", "trainer.steps=40"]
    whole = finetune(words, tmp_path / "whole")
    out = tmp_path / "killed"
    for wanted in (3, 9, 16):
        child = life(words, out, tmp_path / "said")
        deadline = time.monotonic() + 300
        while max((line["step"] for line in read_metrics(out / "metrics.jsonl")), default=0) < wanted:
            assert ended(child) is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not (out / "finetuned").exists()
    resumed = finetune(words, out)
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole).values(), _weights(resumed).values(), strict=True))


def test_every_strategy_of_the_configurations_can_be_built(upstream_folder):
    from speechft.config.compose import compose

    upstream = load_upstream(upstream_folder)
    for name in group_names("strategy"):
        build_strategy(compose("train", [f"strategy={name}"])["strategy"]).check(upstream, 100)
