"""Every code block of README.md and docs/ is run, checked or parsed; so are commands and keys inside sentences."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, ROOT, Block, blocks, name, spans
from doc_commands import check, reach
from doc_fixtures import FIXTURES
from doc_keys import FOREIGN_OPTIONS, keys, options
from doc_words import commands

from speechft.cli.main import VERBS
from speechft.config.locate import group_names

BASH = ("bash", "sh", "indented")
DATA = {
    "yaml": yaml.safe_load,
    "json": json.loads,
    "tsv": lambda text: _rectangular(list(csv.reader(text.splitlines(), delimiter="\t"))),
    "csv": lambda text: _rectangular(list(csv.reader(text.splitlines()))),
}
NAMES = [name(page) for page in PAGES]


def _rectangular(rows: list[list[str]]) -> None:
    assert len(rows) > 1 and len({len(row) for row in rows}) == 1, rows


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_tested_or_says_why_not(page: Path):
    for block in blocks(page):
        try:
            _look(block)
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}\n{block.text}") from error


def _look(block: Block) -> None:
    assert block.how != "no" or block.why, "say why it is not tested"
    assert block.fixture is None or block.fixture in FIXTURES, f"unknown fixture {block.fixture}"
    if block.how == "no":
        return
    if block.language in BASH:
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, capture_output=True)
        for words in commands(block.text):
            check(words)
    elif block.language == "python":
        compile(block.text, block.place, "exec")
        assert block.how or _named_in_tests(block.page), "neither marked nor tested by a file that names the page"
    elif block.language in DATA:
        DATA[block.language](block.text)
    elif block.language == "toml":
        pytest.importorskip("tomllib").loads(block.text)
    else:
        assert block.language in ("text", ""), f"what is a block of {block.language}?"
        assert not re.search(r"^\s*(\$ |speechft (?!error))", block.text, re.MULTILINE), "commands belong into bash"


def _named_in_tests(page: Path) -> bool:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name != "docs"]
    return any(f'"{page.name}"' in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_sentences_say(page: Path):
    """Commands, options, keys and files of this project that stand inside sentences and tables."""
    for place, span in spans(page):
        try:
            _look_at_span(span)
        except Exception as error:
            raise AssertionError(f"{place}: `{span}`: {error}") from error


def _look_at_span(span: str) -> None:
    words = span.split()
    if span.startswith("speechft ") and not span.startswith("speechft error"):
        assert words[1].isupper() or words[1].startswith("-") or words[1] in VERBS, "no such command"
        if len(words) > 2 and not words[1].isupper():
            for one in commands(span):
                reach(one[1:])
    elif span.startswith("pip install") or (span.startswith("scripts/") and len(words) > 1):
        for one in commands(span):
            check(one)
    elif span.startswith("--"):
        known = options() | FOREIGN_OPTIONS
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"no command has {word}"
    elif re.fullmatch(r"(\+?[a-z_]+(\.\w+)*=\S+ ?)+", span):
        for word in words:
            key = word.partition("=")[0]
            if "." in key and not key.startswith(("+", "hydra.", "config.")):
                assert _known_key(key), f"there is no key {key}"
    elif re.fullmatch(r"(trainer|strategy|task|data|upstream)\.(?!py$)[a-z_.]+", span):
        assert _known_key(span), f"there is no key {span}"
    elif re.fullmatch(r"(speechft|configs|tests|scripts|docs)/[\w./-]+", span):
        assert (ROOT / span).exists(), "no such file"


def _known_key(key: str) -> bool:
    parts = key.split(".")
    if parts[0] == "superb" and parts[1].isupper():  # superb.TASK.lr
        return f"superb.sid.{'.'.join(parts[2:])}" in keys()
    if parts[:2] == ["data", "KEY"]:
        return True
    if parts[0] in ("train", "eval"):  # of scripts/reproduce
        return parts[1] == "KEY" or _known_key(".".join(parts[1:]))
    if parts[0] == "upstream" and parts[1] in group_names("upstream"):  # of scripts/reproduce
        return True
    return key in keys() or any(".".join(parts[:count]) in keys() for count in range(2, len(parts)))


# --------------------------------------------------------------------------------------------------- blocks that run

RUNNING = [page for page in PAGES if any(block.how in ("run", "slow") for block in blocks(page))]


@pytest.mark.parametrize("page", [page for page in RUNNING if any(block.how == "run" for block in blocks(page))],
                         ids=name)  # fmt: skip
def test_quick_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    """In this process: what takes longest is to import torch."""
    from speechft.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    scope: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.how != "run":
            continue
        _prepare(block, tmp_path)
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), scope)
        else:
            for words in commands(block.text):
                assert words[0] == "speechft", f"{block.place}: only speechft runs here"
                code = main(words[1:])
                assert code == 0, f"{block.place}: {' '.join(words)}: {capfd.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in RUNNING if any(block.how == "slow" for block in blocks(page))],
                         ids=name)  # fmt: skip
def test_slow_blocks_run_with_few_steps(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    """What takes minutes as it stands: the same words, and steps scaled down."""
    from speechft.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    few = {
        "train": ["trainer.steps=4", "trainer.eval_every=4"],
        "eval": ["superb.sid.steps=8", "superb.sid.eval_step=4"],
    }
    for block in blocks(page):
        if block.how != "slow":
            continue
        assert block.fixture is None
        if block.language == "python":
            text, count = re.subn(r"trainer\.steps=\d+", "trainer.steps=4", block.text)
            assert count == 1, f"{block.place}: how many steps does it train?"
            exec(compile(text, block.place, "exec"), {"__name__": "page"})
            continue
        for words in commands(block.text):
            assert words[0] == "speechft", f"{block.place}: only speechft runs here"
            code = main([*words[1:], *few.get(words[1], [])])
            assert code == 0, f"{block.place}: {' '.join(words)}: {capfd.readouterr().err}"
    assert list(tmp_path.rglob("model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_all_blocks_run(page: Path, tmp_path: Path):
    """As a reader would: bash and Python, each block in a process of its own, one after the other in one folder."""
    shims = tmp_path / ".shims"
    shims.mkdir()
    shim = shims / "speechft"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m speechft "$@"\n')
    shim.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for block in blocks(page):
        if block.how not in ("run", "slow"):
            continue
        _prepare(block, tmp_path)
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run([*command, block.text], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.place}:\n{block.text}\n{done.stdout}\n{done.stderr}"


def _prepare(block: Block, folder: Path) -> None:
    if block.fixture:
        FIXTURES[block.fixture](folder)
