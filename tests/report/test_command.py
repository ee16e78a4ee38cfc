"""`speechft report` as a user types it."""

from __future__ import annotations

import json

import pytest
from results import identity, write_accuracy, write_run
from small import inside


@pytest.fixture
def place(tmp_path):
    run = write_run(tmp_path / "runs" / "mine", "w0", "w1", {0.25: "w25"})
    (tmp_path / "runs" / "latest").symlink_to("mine")
    merged = identity("w25", source=str(run / "merged" / "alpha-0.25"))
    write_accuracy(run / "superb" / "mine-alpha-0.25", "sid", [1, 1, 1, 0] * 5, merged)
    write_accuracy(tmp_path / "runs" / "superb" / "base", "sid", [1, 0] * 10, identity("w0"))
    return tmp_path


def test_the_latest_run(cli, place):
    done = cli("report", "--draws", "200", cwd=place)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "| **base** (pre-trained) | 50.00 [" in done.stdout and "| **mine-alpha-0.25** | +25.00 [" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{place}/runs/mine/report.html, report.md, report.json, alpha.png"
    as_json = inside("report", "runs/mine", "--draws", "200", "--no-published", "--json", "--out", "there", cwd=place)
    report = json.loads(as_json.stdout)
    assert report["rows"][1]["cells"]["sid.acc"]["mean"] == 75 and report["published"] == []
    assert {path.name for path in (place / "there").iterdir()} == {
        "report.html",
        "report.md",
        "report.json",
        "alpha.png",
    }


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["nowhere"], 2, ["nowhere does not exist"]),
        (["runs/mine", "--base", "x"], 2, ["no row is named x", "base, mine-alpha-0.25"]),
        (["runs/mine", "--reference", "x"], 2, ["x is no reference of SUPERB_S", "speech-ft, superb"]),
        (["runs/mine/merged"], 1, ["holds no finished evaluation", "speechft eval superb"]),
    ],
)
def test_one_line_for_an_error(place, words, code, parts):
    done = inside("report", *words, cwd=place)
    assert done.returncode == code and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("speechft: error: ")
    assert all(part in done.stderr for part in parts), done.stderr
