"""A small study from end to end: fine-tuning, merging, probes, the result, the page."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small import save_upstream
from study_speech import SIZES, make_tables

from speechft.choosing.choose import ALPHAS
from speechft.files import read_json
from speechft.study.command import run_plan
from speechft.study.differences import holm, read, shape_of
from speechft.study.page import claims, rates, write_page
from speechft.study.plan import PRETRAINED, Plan
from speechft.study.results import Study

FAST = (
    "superb.pr.steps=2", "superb.pr.eval_step=2", "superb.pr.batch_size=4", "superb.pr.lr=[1e-2]",
    "superb.sid.steps=2", "superb.sid.eval_step=2", "superb.sid.batch_size=4", "superb.sid.lr=[1e-2,1e-3]",
    "superb.asv.steps=1", "superb.asv.eval_step=1", "superb.asv.accumulate=1", "superb.asv.batch_size=2",
    "superb.asv.project_dim=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    make_tables(root / "data")
    whole = Plan({"small": str(save_upstream(root / "small"))})
    plan = replace(
        whole, scenarios=("pr",), strategies=("stable", "l2"), seeds=(0, 1), sizes=SIZES,
        rates={("", "pr"): 1e-3}, probes=(*whole.probes, *FAST),
        train={"": (*whole.train[""], "trainer.steps=3", "trainer.checkpoint_every=3", "data.batch_size=2"),
               "pr": whole.train["pr"]},
        alphas={"stable": (0.25, 1.0), "l2": (1.0,)}, extra={PRETRAINED: (0.0,), "stable": (0.25,)},
    )  # fmt: skip
    run_plan(plan, root / "data", root / "work", root / "docs" / "study" / "results")
    return root, plan


def test_every_piece_has_a_result_and_leaves_nothing_else(studied):
    root, plan = studied
    results = root / "docs" / "study" / "results"
    assert {path.stem for path in results.iterdir()} == {piece.name for piece in plan.pieces()} and len(
        list(results.iterdir())
    ) == 2 + 4
    assert [path.name for path in (root / "work").iterdir()] == ["corpora"]
    record = read_json(results / "small-pr-stable-1.json")
    assert record["seed"] == 1 and set(record["models"]) == {"0.25", "1"} and record["versions"]["speechft"]
    assert record["device"] == "cpu"
    quarter, whole = record["models"]["0.25"], record["models"]["1"]
    assert set(quarter["scores"]) == {"pr", "sid", "digits", "characters", "asv"} and "asv" not in whole["scores"]
    assert quarter["update"] == pytest.approx(0.25 * whole["update"], rel=1e-3)
    assert all(one >= other - 1e-3 for one, other in zip(quarter["cka"], whole["cka"], strict=True))
    swept = [one["alpha"] for one in record["auto"]["candidates"]]
    assert swept == list(ALPHAS) and record["auto"]["chosen"] in swept
    assert record["auto"]["candidates"][0]["scores"]["similarity"] == pytest.approx(1)
    assert "auto" not in read_json(results / "small-pr-l2-1.json")
    assert str(root) not in json.dumps(record)


def test_scores_are_those_of_the_items(studied):
    root, _ = studied
    scores = read_json(root / "docs" / "study" / "results" / "small-pretrained-0.json")["models"]["0"]["scores"]
    for probe, one in scores.items():
        numbers = read(one["numbers"])
        (found,) = shape_of(one["metric"]).estimate(numbers, np.ones((1, len(numbers))))
        assert 100 * found == pytest.approx(one["value"], abs=1e-3), probe
    errors, length = (sum(column) for column in read(scores["pr"]["numbers"]).T)
    assert scores["pr"]["value"] == pytest.approx(100 * errors / length, abs=0.01)
    hits, count = (sum(column) for column in read(scores["sid"]["numbers"]).T)
    assert scores["sid"]["value"] == pytest.approx(100 * hits / count, abs=0.01) and count == 12
    groups = [int(group) for group in scores["sid"]["groups"].split()]
    assert len(groups) == count and max(groups) == 5
    assert set(scores["sid"]["dev"]) == {"0.01", "0.001"}


def test_what_is_done_is_not_done_again(studied, capsys):
    root, plan = studied
    results = root / "docs" / "study" / "results"
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    missing = results / "small-pretrained-1.json"
    content = missing.read_text()
    missing.unlink()
    run_plan(plan, root / "data", root / "work", results)
    after = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    assert {path for path in after if after[path] != before[path]} == {missing}
    old, new = json.loads(content), read_json(missing)
    assert {**old, "seconds": 0} == {**new, "seconds": 0}, "the same piece gives the same numbers"


def test_what_is_not_measured_yet_is_no_test(studied):
    """There is no run of `regular`: its cells are empty, and p is corrected for the tests that were made."""
    root, _ = studied
    study = Study.read(root / "docs" / "study" / "results")
    rows = [line.split(" | ") for line in claims(study).splitlines()[2:]]
    found = [study.against("small", "pr", ("stable", 0.25), probe) for probe in ("sid", "digits", "asv")]
    assert [row[1] for row in rows] == ["small, sid", "small, digits", "small, asv"]
    assert [row[4:6] for row in rows] == [["–", "–"]] * 3
    assert [row[3] for row in rows] == [f"{p:.3f}" for p in holm([one.p for one in found])]


def test_one_seed_is_no_test_and_half_a_study_has_a_page(studied, tmp_path):
    root, _ = studied
    for name in ("small-pretrained-0", "small-pretrained-1", "small-pr-l2-0"):
        shutil.copy(root / "docs" / "study" / "results" / f"{name}.json", tmp_path)
    write_page(tmp_path / "study.md", tmp_path, tmp_path)  # no Speech-FT yet: nothing to draw
    assert "| l2, α = 1 |" in (tmp_path / "study.md").read_text() and not list(tmp_path.glob("*.svg"))
    shutil.copy(root / "docs" / "study" / "results" / "small-pr-stable-0.json", tmp_path)
    write_page(tmp_path / "study.md", tmp_path, tmp_path)
    rows = [line.split(" | ") for line in claims(Study.read(tmp_path)).splitlines()[2:]]
    assert len(rows) == 3 and all(row[2].endswith(": one seed") and row[3] == row[5] == "–" for row in rows)
    assert all(row[7] == "– |" for row in rows)
    assert len(list(tmp_path.glob("*.svg"))) == 2


def test_rates_that_won_are_counted(studied):
    """By the dev scores themselves: of PR the least, of the others the most."""
    root, _ = studied
    results = root / "docs" / "study" / "results"
    won = Counter()
    for path in results.glob("*.json"):
        for model in read_json(path)["models"].values():
            for probe, score in model["scores"].items():
                sign = -1 if probe in ("pr", "characters", "asv") else 1
                best = max(sign * dev for dev in score["dev"].values())
                won[probe] += 1
                assert sign * score["dev"][f"{score['lr']:g}"] == best
    lines = rates(Study.read(results)).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| PR", "| SID", "| digits", "| characters", "| ASV"]
    for line, probe in zip(lines, ("pr", "sid", "digits", "characters", "asv"), strict=True):
        counts = [int(one.partition(": ")[2]) for one in line.split(" | ")[2].strip(" |").split(", ")]
        assert sum(counts) == won[probe] and "small" in line
    line = next(line for line in lines if line.startswith("| SID"))
    models = [model for path in results.glob("*.json") for model in read_json(path)["models"].values()]
    low = sum(model["scores"]["sid"]["lr"] == 0.001 for model in models)
    assert f"| 0.001: {low}, 0.01: {won['sid'] - low} |" in line


def test_the_page_is_filled_where_it_is_marked(studied):
    root, _ = studied
    page = root / "docs" / "study.md"
    page.write_text(
        "# Study\n\n<!-- study: pr -->\nold\n<!-- end -->\n\nwords\n\n<!-- study: claims --><!-- end -->\n"
        "<!-- study: choices --><!-- end -->\n"
    )
    write_page(page, root / "docs" / "study" / "results")
    text = page.read_text()
    assert "old" not in text and text.startswith("# Study\n") and "\nwords\n" in text
    assert "| stable, α = 0.25 |" in text and "| l2, α = 1 |" in text and "| PR | small, sid |" in text
    record = read_json(root / "docs" / "study" / "results" / "small-pr-stable-1.json")["auto"]
    assert f"| PR | small | 1 | {record['chosen']:g} | " in text and text.count("| PR | small | ") == 2
    assert (root / "docs" / "study" / "pr-small-alpha.svg").is_file()
    write_page(page, root / "docs" / "study" / "results")
    assert page.read_text() == text
