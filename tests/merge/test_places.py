"""Where merges go: several at once, and what must not be replaced."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from test_safety import complete

from speechft import files
from speechft.cli.main import main
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.sharing import shared_folder


def children(*works):
    """Their exit codes; each runs in a process of its own, at the same time."""
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                work()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.mark.parametrize("exchange", [True, False])
def test_several_processes_merge_into_one_folder(parents, tmp_path, monkeypatch, exchange):
    """Other alphas, and the same one: nobody takes another's unfinished folder away, nor its place."""
    base, (tuned, _) = parents
    if not exchange:  # a system where two names cannot be exchanged
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)

    def work(alphas):
        def merges():
            for _ in range(6):
                merge(base, [tuned], alphas, out=tmp_path, check=False)

        return merges

    assert children(work([0.1, 0.5]), work([0.2, 0.5]), work([0.3])) == [0, 0, 0]
    left = {path.name for path in tmp_path.iterdir() if path.name != ".writing"}
    assert left == {"alpha-0.1", "alpha-0.2", "alpha-0.3", "alpha-0.5"}
    for name in left:
        complete(tmp_path / name)


def test_only_what_nobody_writes_any_more_is_cleared(tmp_path):
    with shared_folder(tmp_path), files.whole_folder(tmp_path / "model") as temporary:
        with shared_folder(tmp_path):
            assert temporary.is_dir()
        (temporary / "x").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / ".partial-model-00000000").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".partial-link-00000000").symlink_to(tmp_path / "elsewhere")
    with shared_folder(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"model", "elsewhere", ".writing"}


def test_a_link_that_is_replaced_leaves_nothing(tmp_path):
    """What it led to stays."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("x")
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with files.whole_folder(tmp_path / "model") as temporary:
        (temporary / "new").write_text("y")
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "model"}
    assert (tmp_path / "model" / "new").is_file() and (tmp_path / "elsewhere" / "mine").is_file()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, capsys, said, *words):
    """One line, and everything as it was."""
    before = contents(folder)
    capsys.readouterr()
    assert main(["merge", *map(str, words), "--out", str(folder)]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert said in line and "--out" in line and not told.out
    assert contents(folder) == before


def test_what_is_no_merge_stays(parents, tmp_path, capsys):
    base, (tuned, _) = parents
    words = ["--pretrained", base, "--finetuned", tuned]
    (tmp_path / "alpha-0.25").mkdir()
    merge(base, [tuned], out=tmp_path)  # an empty folder is nobody's
    mine = tmp_path / "alpha-0.5"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    refused(tmp_path, capsys, "alpha-0.5 is no merged model", *words, "--alpha", "0.25", "0.5")
    for text in ("[]", "{", '"merge"', "{}"):
        (mine / "merge.json").write_text(text)
        refused(tmp_path, capsys, "alpha-0.5 is no merged model", *words, "--alpha", "0.5")
    shutil.rmtree(mine)
    mine.write_text("a file")
    refused(tmp_path, capsys, "alpha-0.5 is a file", *words, "--alpha", "0.5")
    mine.unlink()
    mine.symlink_to(tmp_path / "alpha-0.25")
    refused(tmp_path, capsys, "alpha-0.5 is a link", *words, "--alpha", "0.5")
    assert mine.is_symlink()


def test_a_parent_is_not_replaced(parents, tmp_path, capsys):
    base, (tuned, other) = parents
    (model,) = merge(base, [tuned], out=tmp_path)
    refused(tmp_path, capsys, "is a parent of this merge", "--pretrained", base, "--finetuned", model.folder)
    refused(tmp_path, capsys, "is a parent of this merge", "--pretrained", model.folder, "--finetuned", other)
    (tmp_path / "link").symlink_to(model.folder)
    refused(tmp_path, capsys, "is a parent of this merge", "--pretrained", base, "--finetuned", tmp_path / "link")
    shutil.copytree(tuned, model.folder / "inside")
    inside = model.folder / "inside"
    refused(tmp_path, capsys, f"holds a parent of this merge ({inside})", "--pretrained", base, "--finetuned", inside)
    complete(model.folder)


def test_nothing_is_put_into_a_parent(parents, tmp_path):
    base, (tuned, _) = parents
    with pytest.raises(UsageError, match=r"would lie inside a parent of this merge .*choose another folder with --out"):
        merge(base, [tuned], [0.25], out=tuned / "merged")
    assert not (tuned / "merged").exists()


def test_the_same_model_twice(parents, tmp_path, capsys):
    base, (tuned, _) = parents
    with pytest.raises(UsageError, match=r"tuned1/ is given twice; name each"):
        merge(base, [tuned, f"{tuned}/"], out=tmp_path / "out")
    copy = Path(shutil.copytree(tuned, tmp_path / "copy"))
    merge(base, [tuned, copy], out=tmp_path / "out")
    assert f"{copy} has the same weights as {tuned}" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the folder is Linux's")
def test_a_place_where_nothing_can_be_made(parents, tmp_path):
    base, (tuned, _) = parents
    with pytest.raises(SpeechFTError, match=r"^/proc/nope cannot be made \(.+\); choose another folder with --out"):
        merge(base, [tuned], out="/proc/nope")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpeechFTError, match=r"file is a file\); choose another folder with --out"):
        merge(base, [tuned], out=tmp_path / "file" / "deep")


def test_minus_zero_is_zero(parents, tmp_path):
    base, (tuned, _) = parents
    (model,) = merge(base, [tuned], [-0.0, 0.0], out=tmp_path, check=False)
    assert model.folder.name == "alpha-0"
    assert str(json.loads((model.folder / "merge.json").read_text())["alpha"]) == "0.0"
