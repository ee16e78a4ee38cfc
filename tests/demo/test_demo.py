"""The demo end to end, on the smallest corpus: every row, the files, and that it goes on where it stopped."""

import json
import subprocess
import sys

import pytest

from speechft.demo.demo import run_demo
from speechft.demo.plan import Plan
from speechft.errors import SpeechFTError
from speechft.report.report import make_report

PLAN = Plan(
    corpus="tiny",
    seeds=2,
    alphas={"regular": (1.0,), "stable": (0.25,)},
    train=("trainer.steps=4", "data.batch_size=4", "trainer.checkpoint_every=2"),
    superb=("superb.pr.steps=6", "superb.pr.batch_size=4", "superb.pr.accumulate=1", "superb.sid.steps=6",
            "superb.ks.steps=6", "superb.ks.crops=2"),
)  # fmt: skip


def test_the_demo_measures_every_row_and_resumes(tmp_path):
    report = run_demo(tmp_path / "demo", seed=3, plan=PLAN, workers=2)
    assert report["seeds"] == [3, 4]
    models = ["pre-trained", "regular fine-tuning (α = 1)", "Speech-FT (stable, α = 0.25)"]
    assert [(cell["model"], cell["task"]) for cell in report["table"]] == [
        (model, task) for model in models for task in ("pr", "sid", "ks")
    ]
    for cell in report["table"]:
        assert len(cell["values"]) == 2 and 0 <= cell["mean"] <= 200
    written = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert written["table"] == json.loads(json.dumps(report["table"]))
    text = (tmp_path / "demo" / "report.md").read_text()
    assert all(model in text for model in models) and "alpha.png" in text
    assert (tmp_path / "demo" / "alpha.png").is_file()

    # `speechft report` finds the same rows and differences in the folder, by the weights' hashes instead of by name
    found = make_report([tmp_path / "demo"], out=tmp_path / "report", published=False, draws=100)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["pre-trained", "regular-1", "stable-0.25"]
    assert [row["alpha"] for row in found["rows"]] == [0.0, 1.0, 0.25]
    for cell in report["table"]:
        name = dict(zip(models, rows, strict=True))[cell["model"]]
        ours = rows[name]["cells"][f"{cell['task']}.{cell['metric']}"]
        assert (ours["mean"], ours["values"]) == (cell["mean"], cell["values"]) and ours["interval"] is not None
        if "difference" in cell:
            assert ours["difference"]["mean"] == pytest.approx(cell["difference"]["mean"])

    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo" / "superb").glob("*/*.json")}
    assert len(scores) == 6 * 3
    again = run_demo(tmp_path / "demo", seed=3, plan=PLAN, workers=1)
    assert again["table"] == report["table"] and (report["went_on"], again["went_on"]) == (False, True)
    assert "going on with what was there" in (tmp_path / "demo" / "report.md").read_text()
    assert "going on" not in text
    assert {path: path.stat().st_mtime_ns for path in scores} == scores


def test_two_demos_do_not_share_a_folder(tmp_path):
    code = "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held'); input()"
    (tmp_path / "demo").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-uc", code, str(tmp_path / "demo" / ".demo")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(SpeechFTError, match="a demo is running in"):
        run_demo(tmp_path / "demo", plan=PLAN)
    other.communicate(b"\n")
