"""`speechft eval superb -m` and `--estimate`: jobs through Hydra's launchers, and what they would take."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from speechft.cli.main import main

sys.path.insert(0, str(Path(__file__).parent.parent / "superb"))
from tiny_corpora import RECIPES, Corpora, make_librispeech, make_voxceleb

JOBLIB = find_spec("hydra_plugins") is not None and find_spec("hydra_plugins.hydra_joblib_launcher") is not None


@pytest.fixture(scope="module")
def words(tmp_path_factory, upstream_folder) -> list[str]:
    root = tmp_path_factory.mktemp("corpora")
    make_librispeech(root / "ls")
    make_voxceleb(root / "vox")
    data = Corpora(root).data
    paths = [f"data.{key}={data[key]}" for key in ("librispeech", "lexicon", "voxceleb1")]
    recipes = [f"superb.{task}.{key}={value}" for task in ("pr", "sid") for key, value in RECIPES[task].items()]
    return ["eval", "superb", str(upstream_folder), "--tasks", "pr,sid", *paths, *recipes, "device=cpu", "--json"]


@pytest.fixture
def command(words, tmp_path, capsys):
    """Run it in this process: (exit code, stdout as JSON or None, stderr)."""

    def run(*more: str, name: str):
        code = main([*words, *more, f"store={tmp_path / 'store' / name}", "--out", str(tmp_path / name)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


def without_time(results: list[dict]) -> list[dict]:
    return [{**result, "seconds": 0} for result in results]


@pytest.mark.skipif(not JOBLIB, reason="pip install 'speechft[launchers]'")
def test_jobs_leave_what_one_command_leaves(command, tmp_path):
    code, plain, err = command(name="one")
    assert code == 0 and "what this takes" not in err, "for a few seconds of audio nothing is said"
    code, jobs, err = command("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", name="many")
    assert code == 0, err
    assert without_time(jobs) == without_time(plain)
    for folder in ("one", "many"):
        names = sorted(path.name for path in (tmp_path / folder / "tiny_hubert").iterdir())
        assert names == [".work", "pr.json", "pr.utterances.jsonl", "sid.json", "sid.utterances.jsonl"]
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["tiny_hubert"]
    content = {
        folder: {
            str(path.relative_to(tmp_path / "store" / folder)): path.read_bytes()
            for path in (tmp_path / "store" / folder).rglob("*.*")
            if path.is_file()
        }
        for folder in ("one", "many")
    }
    assert content["one"] == content["many"] != {}


def test_a_job_that_fails_does_not_stop_the_others(command, tmp_path):
    code, results, err = command("-m", "superb.pr.lr=1e30", name="failing")
    assert code == 1 and [result["task"] for result in results] == ["sid"]
    assert err.splitlines()[-1].startswith("speechft: error: 1 of 2 jobs failed, first: the loss of pr is NaN at step ")
    assert err.splitlines()[-1].endswith("; lower superb.pr.lr") and "Traceback" not in err
    code, results, err = command("-m", name="failing")  # again, with a rate that works
    assert code == 0 and [result["task"] for result in results] == ["pr", "sid"]
    assert "sid: finished before" in err


def test_wrong_jobs(command):
    for word, line in (
        ("seed=1,2", "seed=1,2 would give several results one name"),
        ("hydra/launcher=slurm", "unknown hydra/launcher 'slurm'"),
        ("data.voxceleb1=/nowhere", "sid needs files that are not there"),
    ):
        code, results, err = command("-m", word, name="wrong")
        assert code in (1, 2) and results is None and line in err and "Traceback" not in err


def test_a_launcher_that_is_not_installed(command, monkeypatch):
    monkeypatch.setattr("speechft.cli.sweep.find_spec", lambda name: None)
    code, _, err = command("-m", "hydra/launcher=submitit_slurm", name="wrong")
    assert code == 1 and "needs hydra-submitit-launcher" in err and "speechft[launchers]" in err


def test_only_the_estimate(command, words, tmp_path, capsys):
    for option in ("--estimate", "estimate=true"):
        code, parts, err = command(option, name="estimate")
        assert code == 0 and err == ""
        assert [(part["task"], part["finished"]) for part in parts] == [("pr", False), ("sid", False)]
        assert all(part["encode_seconds"] > 5 and part["write_bytes"] > 5_000 for part in parts)
    assert not (tmp_path / "estimate").exists() and not (tmp_path / "store").exists()
    assert main([word for word in words if word != "--json"] + ["--estimate", "--out", str(tmp_path / "x")]) == 0
    assert "sid: 0.00 h of audio to encode, 0.00 GB to write" in capsys.readouterr().out
