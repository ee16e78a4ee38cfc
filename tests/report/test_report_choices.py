"""What a report says of how α was chosen: the words of the choice itself, in the page and in Markdown."""

import json

import pytest
from results import identity, write_accuracy, write_run

from speechft.report.report import make_report

TITLES = {"similarity": "similarity (linear CKA)", "dev_per": "dev PER"}


def choice(**changes):
    def candidate(alpha, kept, error, share):
        return {
            "alpha": alpha, "sha256": "x", "scores": {"similarity": kept, "dev_per": error}, "seconds": 1.0,
            "details": {"layers": ["long"] * 50}, "on_front": alpha < 1, "relative_loss": {},
            "intervals": {"dev_per": [error - 1, error + 1]}, "chosen_share": share,
        }  # fmt: skip

    return {
        "chosen": 0.25, "folder": "x", "rule": {"name": "knee"}, "why": "the knee, 0.30 beyond <the> plane",
        "objectives": [
            {"name": "similarity", "title": TITLES["similarity"], "higher_better": True, "digits": 4},
            {"name": "dev_per", "title": TITLES["dev_per"], "higher_better": False, "digits": 2},
        ],
        "candidates": [candidate(0.0, 1.0, 30.0, 0.0), candidate(0.25, 0.98, 25.0, 0.7), candidate(0.5, 0.9, 24.0, 0.3),
                       candidate(1.0, 0.8, 24.5, 0.0)],
        "reached": {"similarity": 0.8, "dev_per": 0.83}, "draws": 200, "target": "dev_per", "front": [0.0, 0.25, 0.5],
        "merge": {"method": "linear"}, "settings": {}, "versions": {},
    } | changes  # fmt: skip


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "run", "base", "tuned", {0.25: "quarter"})
    write_accuracy(folder / "superb" / "base", "ks", [1, 0] * 20, identity("base"))
    merged = identity("quarter", source=str(folder / "merged" / "alpha-0.25"))
    write_accuracy(folder / "superb" / "run-alpha-0.25", "ks", [1, 1, 1, 0] * 10, merged)
    return folder


def test_it_is_told_in_page_and_markdown(run, tmp_path):
    (run / "merged" / "choice.json").write_text(json.dumps(choice()))
    report = make_report([run], tmp_path / "out")
    (one,) = report["choices"]
    assert one["run"] == "run" and one["chosen"] == 0.25 and "details" not in one["candidates"][0]
    page = (tmp_path / "out" / "report.html").read_text()
    text = (tmp_path / "out" / "report.md").read_text()
    for said in ("How α was chosen", "the rule chooses 0.25 in 70 %, 0.5 in 30 %", "does not tell 0.25 from 0.5",
                 "it lies at 80 % in similarity (linear CKA), 83 % in dev PER", "25.00 [24.00, 26.00]"):  # fmt: skip
        assert said in page and said in text, said
    assert "0.30 beyond &lt;the&gt; plane" in page and 'href="#choice"' in page and 'id="choice"' in page
    assert "![The choice of α for run](choice.png)" in text and (tmp_path / "out" / "choice.png").is_file()
    kinds = [picture["kind"] for picture in report["pictures"]]
    assert kinds[:2] == ["alpha", "choice"] and report["plots"][0]["file"] == "alpha.png"


def test_older_and_damaged_choices(run, tmp_path):
    older = choice()
    for row in older["candidates"]:
        del row["intervals"], row["chosen_share"]
    del older["reached"], older["draws"]
    (run / "merged" / "choice.json").write_text(json.dumps(older))
    make_report([run], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 0.25 | 0.9800 | 25.00 | yes | chosen |" in text and "bootstrap draws of the dev" not in text
    (run / "merged" / "choice.json").write_text("[]")
    report = make_report([run], tmp_path / "out")
    assert not report["choices"] and any("choice.json is not the result of a choice" in one for one in report["notes"])
    (run / "merged" / "choice.json").unlink()
    page = make_report([run], tmp_path / "plain") and (tmp_path / "plain" / "report.html").read_text()
    assert "How α was chosen" not in page and not (tmp_path / "plain" / "choice.png").exists()
