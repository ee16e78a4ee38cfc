"""The paper's settings as configurations compose them, against a table written by hand from the paper and its code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import save_upstream

from speechft.config.compose import compose, compose_section
from speechft.config.locate import config_dir, read_group
from speechft.data.corpora import find
from speechft.data.joint import data_section, read_parts
from speechft.reproduce.deviations import tables
from speechft.reproduce.parts import parts_of
from speechft.strategies.build import build_strategy
from speechft.train.schedule import Schedule
from speechft.train.sequence import stage_of
from speechft.upstreams.load import load_upstream

MULTI = ["data.root=/ted", "task.tasks.sid.data.root=/vox", "task.tasks.er.data.root=/iemocap"]
PHONES = ["data.root=/x", "task.lexicon=/y"]
NEEDED = {
    f"{name}{ending}": words
    for name, words in {"pr": PHONES, "multitask_joint": MULTI, "multitask_sequential": MULTI}.items()
    for ending in ("", "_regular")
}
STABLE, REGULAR = (0.1, ["cnn"]), (0.0, [])
LAST_TWO = ["cnn", "projection", "position", "layers.[0-9]"]  # frozen

# steps, utterances of a batch, batches of a step, peak rate, end of warm-up and of plateau, frozen at first and always
PAPER = {
    "asr": (50_000, 16, 1, 1e-4, 0.1, 0.5, STABLE),
    "asr_regular": (50_000, 16, 1, 1e-4, 0.1, 0.5, REGULAR),
    "asr_l2": (50_000, 16, 1, 1e-4, 0.1, 0.5, REGULAR),
    "asr_lora": (50_000, 16, 1, 1e-3, 0.1, 0.5, REGULAR),
    "asr_dora": (50_000, 16, 1, 1e-3, 0.1, 0.5, REGULAR),
    "asr_early": (50_000, 16, 1, 1e-4, 0.1, 0.5, REGULAR),
    "pr": (50_000, 16, 1, 1e-4, 0.1, 0.5, STABLE),
    "pr_regular": (50_000, 16, 1, 1e-4, 0.1, 0.5, REGULAR),
    "sid": (30_000, 8, 4, 1e-4, 0.1, 0.5, STABLE),
    "sid_regular": (30_000, 8, 4, 1e-4, 0.1, 0.5, REGULAR),
    "er": (30_000, 4, 8, 1e-4, 0.1, 0.5, STABLE),
    "er_regular": (30_000, 4, 8, 1e-4, 0.1, 0.5, REGULAR),
    "aishell3": (50_000, None, 1, 1e-4, 0.1, 0.5, STABLE),
    "aishell3_regular": (50_000, None, 1, 1e-4, 0.1, 0.5, REGULAR),
    "spin": (5_000, None, 1, 1e-4, 0.5, 0.5, (0.1, LAST_TWO)),
    "spin_regular": (5_000, None, 1, 1e-4, 0.5, 0.5, (0.0, LAST_TWO)),
    "multitask_joint": (50_000, 16, 3, 1e-4, 0.1, 0.5, STABLE),
    "multitask_joint_regular": (50_000, 16, 3, 1e-4, 0.1, 0.5, REGULAR),
    "multitask_sequential": (50_000, 16, 1, 1e-4, 0.1, 0.5, STABLE),
    "multitask_sequential_regular": (50_000, 16, 1, 1e-4, 0.1, 0.5, REGULAR),
}
UPSTREAMS = ("hubert_base", "wav2vec2_base", "decoar2", "wavlm_base_plus")


def composed(name: str, *words: str) -> dict:
    return compose("train", [f"experiment=paper/{name}", *NEEDED.get(name, ["data.root=/x"]), *words])


def test_the_table_has_every_experiment():
    assert {path.stem for path in (config_dir() / "experiment" / "paper").glob("[!_]*.yaml")} == PAPER.keys()


@pytest.mark.parametrize("name", PAPER)
def test_numbers_are_the_papers(name):
    steps, batch, accumulate, lr, warmup, hold, (freeze, frozen) = PAPER[name]
    settings = composed(name)
    trainer, strategy, data = settings["trainer"], settings["strategy"], settings["data"]
    assert (trainer["steps"], data["batch_size"], trainer["accumulate"]) == (steps, batch, accumulate)
    assert (trainer["lr"], trainer["warmup"], trainer["hold"]) == (lr, warmup, hold)
    assert (strategy["freeze_fraction"], strategy["frozen_parts"]) == (freeze, frozen)
    assert (trainer["optimizer"], trainer["betas"], trainer["precision"]) == ("adam", [0.9, 0.999], "no")
    assert (trainer["clip"], trainer["weight_decay"]) == ((10.0, 1e-6) if "spin" in name else (1.0, 0.0))
    assert (trainer["finetuned"], trainer["ema"], settings["task"].get("head_lr")) == ("last", None, None)
    assert settings["upstream"]["name"] == "hubert_base" and settings["upstream"]["normalize"] is False
    assert settings["upstream"]["dropout"] is None  # the model's own rates stay on
    assert settings["paper"]["deviations"].keys() >= {"checkpoint", "freeze", "padding"}


def test_upstream_and_strategy_can_be_chosen():
    for upstream in UPSTREAMS:
        settings = composed("asr", f"upstream={upstream}")
        assert settings["upstream"]["name"] == upstream and settings["name"] == f"paper-asr-{upstream}-stable"
    assert composed("er", "strategy=regular")["strategy"]["name"] == "regular"
    assert composed("asr_lora")["strategy"]["adapter"] == {
        "kind": "lora", "rank": 8, "alpha": 16, "dropout": 0.0, "targets": ["query", "value"],
    }  # fmt: skip
    assert composed("asr_dora")["strategy"]["adapter"]["kind"] == "dora"
    assert composed("asr_l2")["strategy"]["l2"] == 1e-2
    early = build_strategy(composed("asr_early")["strategy"])
    assert early.last_step(50_000) == 10_000


def test_the_head_of_asr_is_the_papers():
    task = composed("asr")["task"]
    assert (task["head"], task["hidden"], task["dropout"], task["units"]) == ("blstm", 256, 0.2, "characters")
    published = read_group("superb", "asr")["specaug"]  # the same in s3prl_modified/downstream/asr_ted/config.yaml
    assert task["specaugment"] == {
        "time_masks": published["num_time_mask"], "time_width": published["time_mask_width_range"][1],
        "dim_masks": published["num_freq_mask"], "dim_width": published["freq_mask_width_range"][1],
        "time_warp": published["time_warp_window"],
    }  # fmt: skip
    assert composed("asr")["data"]["hours"] == 10
    (source,) = composed("asr")["data"]["train"]
    assert (source["min_seconds"], source["max_seconds"], source["normalize"]) == (1.0, 60.0, "letters")


@pytest.mark.parametrize("name", ["asr", "er"])
def test_the_unfreeze_comes_at_the_peak(name):
    """Warm-up and freeze end with the same step: the upstream's first update has the whole rate."""
    settings = composed(name)
    total, strategy = settings["trainer"]["steps"], build_strategy(settings["strategy"])
    schedule = Schedule(total, settings["trainer"]["warmup"], settings["trainer"]["hold"])
    first = total // 10
    assert strategy.phase(first - 1, total) == "head" and strategy.phase(first, total) == "full"
    assert schedule.factor(0) == 1 / first and schedule.factor(first - 1) == schedule.factor(first) == 1.0
    assert schedule.factor(total // 2 - 1) == schedule.factor(total // 2) == 1.0
    assert schedule.factor(3 * total // 4) == pytest.approx(0.5)
    assert schedule.factor(total - 1) == pytest.approx(2 / total)


def test_er_hears_sessions_2_to_5_and_nothing_of_1(corpora):
    settings = composed("er", f"data.root={corpora['iemocap']}")
    heard = [item for found in find(settings["data"]["train"]) for item in found.items]
    assert {item.labels["session"] for item in heard} == {"2", "3", "4", "5"}
    assert {item.id[:5] for item in heard} == {f"Ses0{session}" for session in (2, 3, 4, 5)}
    assert settings["data"]["dev"] is None and settings["paper"]["er_folds"] == [1]
    for name in ("multitask_joint", "multitask_sequential"):
        (source,) = composed(name)["task"]["tasks"]["er"]["data"]["train"]
        assert source == {"kind": "iemocap", "root": "/iemocap", "split": ["train", "dev"], "fold": 1}
        assert composed(name)["paper"]["er_folds"] == [1]


def test_multitask_parts_are_the_single_ones():
    """Each part of a sequence is trained as it would be alone."""
    settings = composed("multitask_sequential")
    alone = {"asr": composed("asr", "data.root=/ted"), "sid": composed("sid", "data.root=/vox"),
             "er": composed("er", "data.root=/iemocap")}  # fmt: skip
    parts = read_parts(settings["task"]["tasks"], ("trainer",))
    assert list(parts) == list(alone)
    for name, part in parts.items():
        stage, single = stage_of(settings, part), alone[name]
        assert stage["task"] == single["task"] and stage["strategy"] == single["strategy"]
        assert stage["trainer"] == single["trainer"]
        theirs = [{k: v for k, v in source.items() if k != "dev_session"} for source in single["data"]["train"]]
        assert [{k: v for k, v in source.items() if k != "dev_session"} for source in stage["data"]["train"]] == theirs
        assert stage["data"]["batch_size"] == single["data"]["batch_size"]
        assert stage["data"]["checks"] == single["data"]["checks"]
    assert [(part.name, part.steps) for part in parts_of(settings)] == [
        ("asr", 50_000),
        ("sid", 30_000),
        ("er", 30_000),
    ]


def test_joint_batches_are_shared_evenly():
    settings = composed("multitask_joint")
    data = data_section(settings)
    assert [source["task"] for source in data["train"]] == ["asr", "sid", "er"]
    assert data["checks"]["longest"] is None  # VoxCeleb1 has utterances of more than two minutes
    assert [(part.share, part.settings["data"]["batch_size"]) for part in parts_of(settings)] == [(1 / 3, 16)] * 3


def test_spin_trains_the_last_two_layers_of_a_base_model(tmp_path):
    strategy = build_strategy(composed("spin")["strategy"])
    upstream = load_upstream(save_upstream(tmp_path / "twelve", num_hidden_layers=12))
    trained = strategy.trainable_parts(upstream.parts(), 4_999, 5_000)
    assert trained == {"layers.10", "layers.11", "mask_embedding"}
    assert strategy.trainable_parts(upstream.parts(), 499, 5_000) == set()


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm"])
def test_training_neither_masks_nor_drops_layers(family, tmp_path):
    """Without dropout a model in training computes what it does in inference, however much its config.json drops."""
    folder = save_upstream(tmp_path / family, family, layerdrop=0.9, mask_time_prob=0.9, apply_spec_augment=True)
    upstream = load_upstream({**read_group("upstream", "hubert_base"), "source": str(folder), "dropout": 0.0})
    waves = [torch.randn(8000), torch.randn(6000)]
    with torch.no_grad():
        quiet = upstream.eval()(waves).last
        torch.testing.assert_close(upstream.train()(waves).last, quiet)


def test_a_section_can_be_read_while_others_lack_values():
    assert compose_section("train", ["experiment=paper/asr"], "paper")["paths"] == {"tedlium3": "data.root"}


def test_the_documentation_has_every_experiments_deviations_under_its_name():
    page = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    assert page.partition("<!-- deviations -->\n")[2].partition("\n<!-- end -->")[0] == tables().strip()
    sections = dict(part.split("\n", 1) for part in page.split("\n### ")[1:])
    shared = sections["All rows, where their own table does not say otherwise"]
    for name in PAPER:
        own = sections[f"`paper/{name}`"]
        for key, why in compose_section("train", [f"experiment=paper/{name}"], "paper")["deviations"].items():
            assert f"| {key} | {why} |" in own + ("" if f"| {key} |" in own else shared), (name, key)


@pytest.mark.parametrize("name", PAPER)
def test_what_is_said_of_freezing_is_what_the_strategy_does(name):
    strategy, said = composed(name)["strategy"], composed(name)["paper"]["deviations"]
    freezes = "frozen for the first 10 %" in said["freeze"] or "for the first 10 % of the steps only" in said["freeze"]
    assert freezes == (strategy["freeze_fraction"] == 0.1)
    trains = strategy["frozen_parts"] == [] and strategy["name"] not in ("lora", "dora")
    assert trains == ("the CNN trains, too" in said.get("cnn", ""))


def test_regular_experiments_differ_from_their_own_by_the_strategy_alone():
    regular = [name for name in PAPER if name.endswith("_regular")]
    assert len(regular) == 8
    for name in regular:
        ours, theirs = (composed(one) for one in (name, name.removesuffix("_regular")))
        assert ours["strategy"]["name"] == "regular" and theirs["strategy"]["name"] == "stable"
        for section in ("task", "data", "trainer", "upstream"):
            assert ours[section] == theirs[section], (name, section)
