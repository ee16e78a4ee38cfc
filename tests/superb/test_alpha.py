"""SUPERB tasks as the scores by which `speechft merge --alpha auto` chooses."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_corpora import save_upstream

from speechft.choosing.candidates import Candidates
from speechft.choosing.choose import SCORES, choose
from speechft.choosing.superb import Superb
from speechft.errors import SpeechFTError
from speechft.superb.evaluate import evaluate


@pytest.fixture
def run(tmp_path):
    """A finished run, as far as merging knows it."""
    from speechft.runs import Run
    from speechft.upstreams.load import load_upstream

    base = save_upstream(tmp_path / "base", seed=0)
    run = tmp_path / "mine"
    save_upstream(run / "finetuned", seed=0)
    weights = load_file(run / "finetuned" / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    moved = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    save_file(moved, run / "finetuned" / "model.safetensors", metadata={"format": "pt"})
    (run / "config.yaml").write_text("seed: 0\ntask: {name: sid}\n")
    (run / "pretrained.json").write_text(json.dumps(load_upstream(base).identity.as_dict()))
    return Run(run), base


def test_scores_are_the_evaluations(run, configuration, tmp_path, capfd):
    run, base = run
    candidates = Candidates.of_run(run, {"upstream": {"name": "tiny", "source": str(base)}}, {})
    cfg = configuration(store=None)

    def scorer():
        names = {0.0: "tiny"}
        return Superb(["ks", "sid"], cfg, run.superb, run.merged / SCORES / "features",
                      lambda alpha: names.get(alpha, f"mine-alpha-{alpha:g}"), "sid")  # fmt: skip

    superb = scorer()
    assert [one.title for one in superb.objectives] == [
        "KS accuracy % (dev)",
        "SID accuracy % (dev)",
    ] and superb.target == 1
    choice = choose(candidates, superb, run.merged, [0.5, 1.0], "budget", 0.05)
    assert {path.name for path in run.superb.iterdir()} == {"tiny", "mine-alpha-0.5", "mine-alpha-1"}
    for row in choice["candidates"]:
        for task, detail in row["details"].items():
            result = json.loads((run.superb / detail["file"]).read_text())
            assert row["scores"][task] == pytest.approx(100 * result["dev"]["acc"])
            assert detail["metrics"] == result["metrics"]
            assert result["upstream"]["sha256"] == row["sha256"]
    assert {path.suffix for path in (run.merged / SCORES).iterdir()} == {".json"}  # candidates' features are gone
    # What was scored for the choice is not scored again when the chosen model is evaluated.
    before = {path: path.stat().st_mtime_ns for path in run.superb.rglob("*.json")}
    if choice["chosen"]:
        evaluate({f"mine-alpha-{choice['chosen']:g}": choice["folder"]}, ["ks", "sid"], out=run.superb, cfg=cfg)
        assert {path: path.stat().st_mtime_ns for path in run.superb.rglob("*.json")} == before
    capfd.readouterr()
    assert choose(candidates, scorer(), run.merged, [0.5, 1.0])["candidates"] == choice["candidates"]
    assert capfd.readouterr().err.count("scored before") == 3


def test_results_of_another_recipe_stay_where_they_are(run, configuration, capfd):
    """What somebody scored by itself is not put aside for a sweep with other steps."""
    run, base = run
    evaluate({"tiny": base}, ["sid"], out=run.superb, cfg=configuration({"steps": 3}))
    before = (run.superb / "tiny" / "sid.json").read_text()
    candidates = Candidates.of_run(run, {"upstream": {"name": "tiny", "source": str(base)}}, {})
    names = {0.0: "tiny"}
    superb = Superb(["sid"], configuration(), run.superb, run.merged / SCORES / "features",
                    lambda alpha: names.get(alpha, f"mine-alpha-{alpha:g}"), aside=run.merged / "superb")  # fmt: skip
    choice = choose(candidates, superb, run.merged, [0.5])
    assert "keeps its results by another recipe; this sweep's are in" in capfd.readouterr().err
    assert (run.superb / "tiny" / "sid.json").read_text() == before
    files = [run.superb / row["details"]["sid"]["file"] for row in choice["candidates"]]
    assert [file.resolve() for file in files] == [
        run.merged / "superb" / "tiny" / "sid.json", run.superb / "mine-alpha-0.5" / "sid.json",
    ]  # fmt: skip
    assert all(file.is_file() for file in files)


def test_the_report_knows_the_alpha_of_what_was_not_kept(run, configuration, capfd):
    from speechft.report.lineage import Lineages

    run, base = run
    candidates = Candidates.of_run(run, {"upstream": {"name": "tiny", "source": str(base)}}, {})
    superb = Superb(
        ["sid"], configuration(), run.superb, run.merged / SCORES / "features", "alpha-{:g}".format, on="test"
    )
    choice = choose(candidates, superb, run.merged, [0.5, 1.0])
    for row in choice["candidates"]:
        assert row["scores"]["sid"] == 100 * row["details"]["sid"]["metrics"]["acc"]
    with pytest.raises(SpeechFTError, match=r"sid has no acc on its dev set; .*--on test"):
        Superb(["sid"], configuration(), run.superb, run.merged, str)._value({"task": "sid", "dev": {}})
    lineages = Lineages()
    lineages.look_at(run.folder)
    found = [lineages.of({"source": "gone", "sha256": row["sha256"]}) for row in choice["candidates"]]
    assert found[0] is None and [one.alpha for one in found[1:]] == [0.5, 1.0]
    assert len({one.family for one in found[1:]}) == 1


def test_missing_files_are_told_before_anything_is_merged(run, configuration, tmp_path):
    run, _ = run
    cfg = configuration()
    cfg["data"]["voxceleb1"] = str(tmp_path / "nowhere")
    with pytest.raises(SpeechFTError, match="nowhere"):
        Superb(["sid"], cfg, run.superb, tmp_path / "scratch", str)
    assert not run.merged.exists()
