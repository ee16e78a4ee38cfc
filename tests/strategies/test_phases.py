"""What trains at which step and rate: against tables worked out by hand from the paper's recipe, and by hashes."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from speechft.errors import UsageError
from speechft.strategies.base import FULL_PHASE, HEAD_PHASE, UPSTREAM_PHASE
from speechft.strategies.build import build_strategy
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.train.schedule import Schedule
from speechft.upstreams.load import load_upstream

STABLE = {"name": "stable", "freeze_fraction": 0.1, "frozen_parts": ["cnn"]}

# The paper's 50 000 steps at 1e-4: warm-up and freeze are the first 5 000, the rate is held up to step 25 000 and falls
# to 0 over the other 25 000. Step, rate, whether projection and layers train; the CNN never does.
PAPER = [
    (0, 2e-8, False), (2_499, 5e-5, False), (4_999, 1e-4, False), (5_000, 1e-4, True), (24_999, 1e-4, True),
    (25_000, 1e-4, True), (31_250, 7.5e-5, True), (37_500, 5e-5, True), (49_999, 4e-9, True),
]  # fmt: skip


@pytest.mark.parametrize(("step", "rate", "upstream"), PAPER)
def test_the_papers_recipe(step, rate, upstream):
    assert 1e-4 * Schedule(50_000).factor(step) == pytest.approx(rate, rel=1e-9)
    trained = build_strategy(STABLE).trainable_parts(["cnn", "projection", "position", "layers.0"], step, 50_000)
    assert trained == ({"projection", "position", "layers.0"} if upstream else set())


# A whole run of 20 steps: 2 of warm-up and freeze, the rate held up to step 10. For each step the share of the peak
# rate, and whether the head, the rest of the upstream, and the CNN have gradients.
TWENTY = [
    (0.5, True, False, False), (1.0, True, False, False), (1.0, True, True, False), (1.0, True, True, False),
    (1.0, True, True, False), (1.0, True, True, False), (1.0, True, True, False), (1.0, True, True, False),
    (1.0, True, True, False), (1.0, True, True, False), (1.0, True, True, False), (0.9, True, True, False),
    (0.8, True, True, False), (0.7, True, True, False), (0.6, True, True, False), (0.5, True, True, False),
    (0.4, True, True, False), (0.3, True, True, False), (0.2, True, True, False), (0.1, True, True, False),
]  # fmt: skip


def test_a_run_follows_the_table(train_words, tmp_path, monkeypatch, upstream_folder):
    """Read where it counts: in the optimiser, as it takes its step."""
    shapes = {part: [p.shape for p in group] for part, group in load_upstream(upstream_folder).parts().items()}
    seen, step = [], torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        upstream = self.param_groups[-1]["params"]
        head = [p for p in parameters if all(p is not other for other in upstream)]
        cnn = upstream[1 : 1 + len(shapes["cnn"])]  # behind the mask embedding, as transformers declares them
        assert [p.shape for p in cnn] == shapes["cnn"]
        rest = [p for p in upstream[1:] if all(p is not other for other in cnn)]
        gradients = [[p.grad is not None for p in group] for group in (head, rest, cnn)]
        assert all(all(group) or not any(group) for group in gradients)
        seen.append((round(self.param_groups[-1]["lr"] / 1e-3, 9), *(group[0] for group in gradients)))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    finetune([*train_words, "strategy=stable"], tmp_path / "run")
    assert seen == TWENTY


def _checkpoints(words, folder):
    """A run of 8 steps whose first 3 are the head's, and its tensors after each step."""
    run = finetune(
        [*words, "trainer.steps=8", "strategy.freeze_steps=3", "trainer.checkpoint_every=1", "trainer.keep=9"], folder
    )
    return run, [load_file(run.checkpoints / f"step-{step}" / "learner.safetensors") for step in range(1, 9)]


def _moves(states, chosen):
    """In which of steps 1 to 7 (from 0) the chosen tensors change: all of them, or none."""
    names = [name for name in states[0] if chosen(name) and "masked_spec_embed" not in name]
    changed = [[not torch.equal(a[name], b[name]) for name in names] for a, b in itertools.pairwise(states)]
    assert all(all(row) or not any(row) for row in changed), "all or none"
    return [step for step, row in enumerate(changed, 1) if all(row)]


@pytest.mark.parametrize(("strategy", "head"), [("stable", [1, 2, 3, 4, 5, 6, 7]), ("frozen_downstream", [1, 2])])
def test_parts_by_phase(train_words, tmp_path, strategy, head):
    run, states = _checkpoints([*train_words, f"strategy={strategy}"], tmp_path / "run")
    assert _moves(states, lambda name: "feature_extractor" in name) == []
    assert _moves(states, lambda name: name.startswith("upstream.") and "feature_extractor" not in name) == [
        3,
        4,
        5,
        6,
        7,
    ]
    assert _moves(states, lambda name: name.startswith("task.")) == head
    marks = [line for line in read_metrics(run.metrics) if line.get("event")]
    second = FULL_PHASE if strategy == "stable" else UPSTREAM_PHASE
    assert [(mark["step"], mark["phase"]) for mark in marks] == [(0, HEAD_PHASE), (3, second), (8, second)]
    assert marks[0]["upstream_sha256"] == marks[1]["upstream_sha256"] != marks[2]["upstream_sha256"]
    assert len({mark["cnn_sha256"] for mark in marks}) == 1
    assert (marks[1]["head_sha256"] == marks[2]["head_sha256"]) == (strategy == "frozen_downstream")


def test_what_is_frozen_can_be_a_part_a_pattern_or_parameters(upstream_folder):
    upstream = load_upstream(upstream_folder)
    own = build_strategy(
        {"name": "own", "frozen_parts": ["cnn", "layers.[1-9]"], "frozen_parameters": ["*layer_norm*", "*.bias"]}
    )
    trained = own.trainable(upstream, 0, 10)
    names = {name.removeprefix("model.") for name in trained}
    assert {name for name in names if name.startswith("encoder.layers")} == {
        *(f"encoder.layers.0.attention.{which}_proj.weight" for which in ("q", "k", "v", "out")),
        "encoder.layers.0.feed_forward.intermediate_dense.weight",
        "encoder.layers.0.feed_forward.output_dense.weight",
    }
    assert names - {name for name in names if name.startswith("encoder.layers")} == {
        "masked_spec_embed", "feature_projection.projection.weight",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    }  # fmt: skip
    frozen = own.frozen(upstream, 10)
    assert (
        frozen.keys() | trained.keys() == dict(upstream.named_parameters()).keys()
        and not frozen.keys() & trained.keys()
    )


def test_an_early_checkpoint_is_the_whole_runs_at_that_step(train_words, tmp_path):
    """Bit for bit, rates included: the schedule is the whole run's."""
    words = [*train_words, "strategy=early"]
    early = finetune([*words, "strategy.stop_fraction=0.6"], tmp_path / "early")  # 12 steps, into the decay
    whole = finetune(
        [*words, "strategy.stop_fraction=null", "trainer.checkpoint_every=4", "trainer.keep=9"], tmp_path / "w"
    )
    there = load_file(whole.checkpoints / "step-12" / "learner.safetensors")
    ours = load_file(early.finetuned / "model.safetensors")
    assert all(torch.equal(there[f"upstream.model.{name}"], tensor) for name, tensor in ours.items())
    rates = {line["step"]: line["lr"] for line in read_metrics(early.metrics) if "lr" in line}
    assert max(rates) == 12 and rates[12] == pytest.approx(0.9e-3)
    assert "the first 12 of 20 steps" in (early.finetuned / "README.md").read_text()


@pytest.mark.parametrize(("options", "said"), [
    ({"frozen_downstream": True}, r"has had no phase of its own; give strategy.freeze_fraction"),
    ({"freeze_steps": -1}, "strategy.freeze_steps is -1"), ({"freeze_steps": True}, "freeze_steps is True"),
    ({"stop_fraction": 0.0}, "stop_fraction is 0.0; it is a share: above 0, at most 1"),
    ({"stop_steps": 0}, "stop_steps is 0"), ({"layer_decay": 0.0}, "layer_decay is 0.0"),
    ({"layer_decay": 1.5}, "layer_decay is 1.5"), ({"l2": -1.0}, "l2 is -1.0"), ({"l2": "much"}, "l2 is 'much'"),
    ({"l2": float("nan")}, "l2 is nan"), ({"frozen_downstream": "yes"}, "frozen_downstream is 'yes'; true or false"),
    ({"l2": 0.1, "adapter": {"kind": "lora"}}, r"nothing to hold where lora .*; choose one"),
    ({"adapter": {"kind": "lore"}}, "unknown strategy.adapter.kind 'lore'; known: lora, dora"),
    ({"adapter": {"rank": 0}}, "adapter.rank is 0"), ({"adapter": {"alpha": 0}}, "adapter.alpha is 0"),
    ({"adapter": {"dropout": 1.0}}, "adapter.dropout is 1.0"), ({"adapter": {"targets": []}}, r"targets are \[\]"),
    ({"adapter": {"targets": ["q"]}}, "choose from query, key, value"),
    ({"adapter": {"ranks": 3}}, "strategy: .*ranks"),
    ({"feature_similarity": {"weight": -1}}, "feature_similarity.weight is -1"),
    ({"feature_similarity": {"distance": "l1"}}, "'l1'; known: cosine, mse"),
    ({"feature_similarity": {"layers": []}}, "layers is empty"),
], ids=str)  # fmt: skip
def test_impossible_options_are_explained(options, said):
    with pytest.raises(UsageError, match=said):
        build_strategy({"name": "own", **options})


@pytest.mark.parametrize(("options", "said"), [
    ({"freeze_steps": 10}, "frozen for 10 steps of a run that ends after 10; .*freeze fewer"),
    ({"freeze_fraction": 0.5, "stop_fraction": 0.5}, "frozen for 5 steps of a run that ends after 5"),
    ({"frozen_parts": ["*"]}, "everything in the upstream is frozen"),
    ({"frozen_parts": ["layer"]}, "no part 'layer'; its parts: cnn"),
    ({"frozen_parameters": ["*bais"]}, r"no parameter of this upstream is like '\*bais'"),
    ({"feature_similarity": {"weight": 1, "layers": [3]}}, "layers has 3; this upstream has hidden states 0 to 2"),
    ({"adapter": {"kind": "lora"}, "frozen_parts": ["layers"]}, "no query that trains; take it out"),
], ids=str)  # fmt: skip
def test_options_that_do_not_fit_the_upstream_are_explained(upstream_folder, options, said):
    with pytest.raises(UsageError, match=said):
        build_strategy({"name": "own", **options}).check(load_upstream(upstream_folder), 10)
