"""The study's overrides, and the words of its command."""

import pytest

from speechft.config.compose import compose as compose_training
from speechft.study import command
from speechft.study.plan import PRETRAINED, Plan
from speechft.superb.settings import compose


def test_longer_heads_and_another_device_change_nothing_else():
    usual, longer = Plan({}), Plan({}, device="cpu", head_steps=4)
    first, second = compose(usual.probing("mine")), compose(longer.probing("mine"))
    assert (first["device"], second["device"]) == ("auto", "cpu")
    for task in ("pr", "sid", "asv"):
        ours, theirs = first["superb"][task], second["superb"][task]
        assert theirs["steps"] == 4 * ours["steps"] and theirs["eval_step"] == 4 * ours["eval_step"]
        assert {**theirs, "steps": 0, "eval_step": 0} == {**ours, "steps": 0, "eval_step": 0}
    words = ["task=sid", "data=tsv", "data.table=x.tsv"]
    trained = compose_training("train", [*words, *longer.training("sid")])["trainer"]
    assert trained["device"] == "cpu" and trained["threads"] == 1


def test_an_upstream_may_have_rates_of_its_own_for_one_probe():
    plan = Plan({}, heads={("", "pr"): (2e-3, 5e-3), ("", "sid"): (1e-3,), ("known", "pr"): (1e-2,)})
    known, other = (compose(plan.probing(name))["superb"] for name in ("known", "other"))
    assert (list(known["pr"]["lr"]), list(other["pr"]["lr"])) == ([1e-2], [2e-3, 5e-3])
    assert list(known["sid"]["lr"]) == list(other["sid"]["lr"]) == [1e-3]


@pytest.fixture
def planned(monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr(command, "run_plan", lambda plan, *args: found.append(plan))
    monkeypatch.setattr("speechft.study.page.write_page", lambda *args: None)
    return lambda *words: (command.main([str(tmp_path), str(tmp_path), *words]), found)


def test_the_words_become_a_plan(planned, tmp_path):
    results = ("--results", str(tmp_path / "mine"))
    code, (plan,) = planned("hubert_nano", "--strategies", "pretrained", "--seeds", "2", "--head-steps", "4", *results)
    assert code == 0 and plan.head_steps == 4 and plan.device == "auto"
    assert [(piece.strategy, piece.seed) for piece in plan.pieces()] == [(PRETRAINED, 0), (PRETRAINED, 1)]
    _, plans = planned("hubert_nano", "--scenarios", "sid", "--strategies", "l2", "--device", "cpu")
    assert [piece.name for piece in plans[-1].pieces()][3:] == [f"hubert_nano-sid-l2-{seed}" for seed in range(3)]


def test_another_study_does_not_go_among_the_pages_results(planned, capsys):
    assert planned("hubert_nano", "--head-steps", "4")[0] == 2
    assert "keep its results apart: --results DIR" in capsys.readouterr().err
