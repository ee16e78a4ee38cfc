"""The commands as a user types them: exit codes, one line for an error, where results go."""

import json
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest
from small import inside

HELP = [["--help"], ["train", "--help"], ["merge", "--help"], ["eval", "superb", "--help"], ["demo", "--help"],
        ["doctor", "--help"], ["report", "--help"], ["push", "--help"], ["convert", "--help"],
        ["analyze", "--help"]]  # fmt: skip


def test_every_command_is_asked_for_its_help():
    from speechft.cli.main import VERBS

    assert {words[0] for words in HELP} == {"--help", *VERBS}


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_is_quick(cli, words):
    began = time.monotonic()
    done = cli(*words)
    assert done.returncode == 0 and "usage: speechft" in done.stdout
    if time.monotonic() - began > 1.0:  # a busy machine: look at what decides it, the imports
        import subprocess
        import sys

        code = f"import sys; from speechft.cli.main import main; main({words!r}); print(','.join(sys.modules))"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        heavy = {"torch", "transformers", "hydra", "s3prl", "lhotse", "numpy"} & set(loaded.splitlines()[-1].split(","))
        assert not heavy


def failed(done, code, *parts):
    """One line on stderr, of the agreed form, and nothing on stdout."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("speechft: error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
    assert "Traceback" not in done.stderr
    assert "; " in errors[0], "it says how to mend it"
    for part in parts:
        assert part in errors[0]


def test_wrong_words(cli, tmp_path):
    failed(cli("trian", cwd=tmp_path), 2, "unknown command 'trian'", "did you mean train? known: train")
    failed(cli("train", "--ouut", "x", cwd=tmp_path), 2, "--ouut")
    failed(inside("train", "steps", cwd=tmp_path), 2, "'steps' is no override")
    failed(inside("train", "trainer.stepss=1", cwd=tmp_path), 2, "did you mean trainer.steps")
    failed(inside("train", "upstream=hubert_bass", cwd=tmp_path), 2, "unknown upstream", "hubert_base")
    failed(inside("eval", "glue", cwd=tmp_path), 2, "unknown benchmark")
    failed(inside("eval", cwd=tmp_path), 2, "names no benchmark", "speechft eval superb")
    failed(inside("eval", "superb", "hubert_nano", "--tasks", "asrr", cwd=tmp_path), 2, "unknown SUPERB task asrr")
    failed(inside("merge", "--alpha", "high", cwd=tmp_path), 2, "invalid float value")
    failed(inside("merge", "--pretrained", "x", cwd=tmp_path), 2, "both --pretrained and --finetuned")
    assert not list(tmp_path.iterdir())


def test_nothing_to_work_on(cli, tmp_path):
    failed(cli("merge", cwd=tmp_path), 2, "there is no latest run", "speechft train")
    failed(inside("eval", "superb", cwd=tmp_path), 2, "there is no latest run")
    failed(
        inside("eval", "superb", "runs/latest", "hubert_nano", "--tasks", "sid", cwd=tmp_path),
        2,
        "there is no latest run",
    )
    failed(inside("merge", tmp_path, cwd=tmp_path), 2, "is no run's folder")
    failed(
        inside("train", "data=librispeech", "data.root=/nowhere", "task=asr", cwd=tmp_path),
        1,
        "LibriSpeech is missing: there is no folder /nowhere",
    )
    failed(
        inside("eval", "superb", "hubert_nano", "--tasks", "sid,ks", cwd=tmp_path),
        1,
        "sid needs files",
        "data.iden_split",
    )


@pytest.fixture(scope="module")
def workplace(train_words, tmp_path_factory):
    from small import speechft

    folder = tmp_path_factory.mktemp("workplace")
    done = speechft("train", *train_words, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_train_then_merge_without_naming_anything(cli, workplace, upstream_folder):
    folder, trained = workplace
    run = Path(trained["run"])
    assert (folder / "runs" / "latest").resolve() == run and run.parent == folder / "runs"
    assert trained["metrics"]["loss"] > 0 and "dev_per" in trained["metrics"]
    done = cli("merge", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(run / "merged" / "alpha-0.25")]
    assert "‖τ‖ = " in done.stderr
    several = json.loads(inside("merge", run, "--alpha", "0", "0.5", "--json", cwd=folder).stdout)
    assert [model["alpha"] for model in several] == [0.0, 0.5]
    again = inside(
        "merge", "--pretrained", upstream_folder, "--finetuned", run / "finetuned", "--out", "here", cwd=folder
    )
    assert again.returncode == 0 and (folder / "here" / "alpha-0.25" / "merge.json").is_file()
    one = (folder / "here/alpha-0.25/model.safetensors").read_bytes()
    assert one == (run / "merged/alpha-0.25/model.safetensors").read_bytes()


def test_bad_merges(workplace, tmp_path):
    folder, trained = workplace
    failed(inside("merge", "--alpha", "1.5", cwd=folder), 2, "alpha 1.5 is outside [0, 1]", "--extrapolate")
    foreign = tmp_path / "foreign"
    shutil.copytree(Path(trained["finetuned"]), foreign)
    (foreign / "model.safetensors").write_text("this is text")
    failed(
        inside("merge", "--pretrained", trained["finetuned"], "--finetuned", foreign, cwd=folder),
        1,
        "is a text, no checkpoint",
    )
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained["run"], unfinished, ignore=shutil.ignore_patterns("finetuned", "merged"))
    failed(inside("merge", unfinished, cwd=folder), 1, "is not finished")


def test_bad_corpora(cli, workplace, librispeech, train_words, tmp_path):
    folder, _ = workplace
    corpus = tmp_path / "corpus"
    shutil.copytree(librispeech, corpus)
    words = [word for word in train_words if not word.startswith("data.root")] + [f"data.root={corpus}"]
    transcript = next((corpus / "train-clean-100").rglob("*.trans.txt"))
    text = transcript.read_text()
    name = text.split()[0]
    transcript.write_text(text.replace(text.splitlines()[0], name))
    failed(cli("train", *words, cwd=folder), 1, f"utterance {name} has an empty transcript")
    transcript.write_text(text)
    audio = next((corpus / "dev-clean").rglob("*.flac"))
    audio.write_bytes(b"")
    failed(inside("train", *words, cwd=folder), 1, f"{audio} cannot be read")


def test_a_folder_that_cannot_be_made_is_named(capsys, monkeypatch):
    from speechft.cli.main import guarded

    def refuse(words):
        Path("/proc/nothing/here").mkdir(parents=True)

    assert guarded(refuse, []) == 1
    assert capsys.readouterr().err.startswith(
        "speechft: error: /proc/nothing: No such file or directory; check the path"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("the first\nand more\n\nand more"), "the first; --debug shows where"),
        (TimeoutError(), "TimeoutError; --debug shows where"),
        (ValueError("\n one\ntwo"), "ValueError: one; run again with --debug to see where"),
        (ValueError(), "ValueError: ; run again with --debug to see where"),
    ],
)
def test_any_error_is_one_line(error, told, capsys):
    from speechft.cli.main import guarded

    def fail(words):
        raise error

    assert guarded(fail, []) == 1
    assert capsys.readouterr().err == f"speechft: error: {told}\n"


def test_a_run_elsewhere_is_trained_where_runs_cannot_be_made(tmp_path, monkeypatch, capsys):
    """As in a folder that only root may write to."""
    from speechft import runs

    (tmp_path / "runs").write_text("a file in its place")
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path / "runs"))
    runs.set_latest(tmp_path / "mine")
    told = capsys.readouterr().err
    assert f"{tmp_path}/runs/latest does not point to {tmp_path}/mine" in told and "name the run" in told


def test_a_sweep_is_no_run_and_names_its_runs(tmp_path):
    for number in (0, 2, 10):
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        for name in ("config.yaml", "pretrained.json"):
            (tmp_path / "sweep" / str(number) / name).write_text("{}")
    named = "it holds runs, name one of them: " + ", ".join(f"{tmp_path}/sweep/{number}" for number in (0, 2, 10))
    failed(inside("merge", tmp_path / "sweep", cwd=tmp_path), 2, "is no run's folder", named)
    failed(inside("eval", "superb", tmp_path / "sweep", "--tasks", "sid", cwd=tmp_path), 1, "holds no model", named)


def test_debug_shows_where(tmp_path):
    done = inside("merge", "--debug", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("speechft: error: there is no latest run")


def test_doctor_reports_packages_and_tasks(cli, tmp_path):
    done = cli("doctor", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["healthy"] and report["packages"]["s3prl"] == "0.4.18"
    assert "data.voxceleb1 is not set" in report["tasks"]["sid"][0]
    ready = json.loads(inside("doctor", "--json", "data.synthetic=demo", cwd=tmp_path).stdout)
    assert ready["tasks"] == {"pr": [], "asr": [], "sid": [], "ks": []}
    speech_only = json.loads(inside("doctor", "--json", "data.synthetic=pretrain", cwd=tmp_path).stdout)
    assert speech_only["tasks"]["sid"] == ["the size pretrain has no sid part"]
    failed(inside("doctor", "data.synthetic=nosuch", cwd=tmp_path), 2, "nosuch")
    (tmp_path / "iden_split.txt").write_text("")
    seen = json.loads(inside("doctor", "--json", f"data.iden_split={tmp_path}/iden_split.txt", cwd=tmp_path).stdout)
    assert seen["data"] == {"iden_split": f"{tmp_path}/iden_split.txt"}
    (tmp_path / "iden_split.txt").unlink()
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_a_run_per_combination(cli, train_words, tmp_path):
    words = [*train_words, "trainer.steps=2", "seed=0,1", "--out", tmp_path / "sweep"]
    done = cli("train", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "sweep").glob("*/finetuned/model.safetensors"))
    assert [path.parent.parent.name for path in runs] == ["0", "1"]
    assert runs[0].read_bytes() != runs[1].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "runs"}


def test_who_stops_a_sweep_stops_all_of_it(monkeypatch, tmp_path, capsys):
    from speechft.cli.main import main
    from speechft.errors import Interrupted

    begun = []

    def finetune(settings, folder):
        begun.append(settings["seed"])
        raise Interrupted("interrupted after step 3", "run the same command")

    monkeypatch.setattr("speechft.train.finetune.finetune", finetune)
    assert main(["train", "-m", "seed=0,1", "experiment=smoke", "--out", str(tmp_path / "sweep")]) == 1
    assert begun == [0] and not list((tmp_path / "sweep").glob(".outcomes-*"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"speechft: error: interrupted; run the same command with --out {tmp_path}/sweep to go on from there"


def test_runs_begun_in_the_same_second_have_folders_of_their_own(monkeypatch, tmp_path):
    """Also two of one process, which names both alike: each is newer than the one before."""
    from speechft import runs

    class Clock:
        @staticmethod
        def now():
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs, "datetime", Clock)
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    found = []
    for process in (11, 12, 12):
        monkeypatch.setattr(runs.os, "getpid", lambda process=process: process)
        found.append(runs.choose_folder(None, "smoke"))
        found[-1].mkdir()
    assert [path.name for path in found] == [
        "smoke-20260102-030405-11", "smoke-20260102-030405-12", "smoke-20260102-030406-12",
    ]  # fmt: skip
    assert runs.dated_folders("smoke")[0] == found[-1]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "--steps", "50"], "did you mean trainer.steps=...? settings are written key=value, without dashes"),
        (["train", "--check-data"], "settings are written key=value, without dashes; see speechft train --help"),
        (["eval", "superb", "x", "--task", "sid"], "did you mean --tasks? see speechft eval superb --help"),
        (["report", "--outs", "x"], "did you mean --out? see speechft report --help"),
    ],
)
def test_options_that_are_none_are_told_what_they_may_mean(words, meant, capsys):
    from speechft.cli.main import main

    assert main(words) == 2
    failure = capsys.readouterr().err
    assert failure.startswith("speechft: error: unrecognized arguments") and meant in failure


def test_a_run_where_an_upstream_belongs_and_the_other_way_round(tmp_path, capsys):
    from speechft.cli.main import main

    run = tmp_path / "mine"
    (run / "finetuned").mkdir(parents=True)
    (run / "config.yaml").write_text("{}\n")
    (run / "pretrained.json").write_text("{}\n")
    assert main(["doctor", "--upstream", str(run)]) == 1
    assert f"{run} is a run, no upstream; its result is {run / 'finetuned'}" in capsys.readouterr().err
    assert main(["merge", str(run / "finetuned")]) == 2
    assert f"is no run's folder; name the run: {run}" in capsys.readouterr().err
