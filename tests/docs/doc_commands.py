"""Documented commands against the real parsers, configurations and registries, stopped before any work begins."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT

from speechft.cli.main import VERBS
from speechft.config.locate import group_names
from speechft.errors import MissingExtraError, UsageError

OTHERS = {"cd", "echo", "export", "head", "ls", "mkdir", "cat", "cp", "scontrol", "sbatch"}
"""Commands that pages may use and nobody checks."""

_LAUNCHERS = {"torchrun", "srun", "accelerate", "python", "python3"}


class Reached(Exception):
    """A command's words were understood; the work would begin here."""


def check(words: Sequence[str]) -> None:
    """One simple command.

    Raises:
        UsageError: it would be refused.
        AssertionError: it names something that is not there.
    """
    first = words[0]
    if first == "speechft":
        reach(words[1:])
    elif first in _LAUNCHERS and "-m" in words and "speechft" in words:
        reach(words[words.index("speechft") + 1 :])
    elif first.startswith("scripts/"):
        _script(words)
    elif first == "pip" or words[:3] == ["python", "-m", "pip"]:
        _pip(words)
    else:
        assert first in OTHERS, f"{' '.join(words)!r} is not checked: mark the block with a comment (doc_blocks.py)"


def _script(words: Sequence[str]) -> None:
    path = ROOT / words[0]
    assert path.is_file() and os.access(path, os.X_OK), f"{words[0]} is not there, or cannot be run"
    if words[0] == "scripts/bench":
        bench = import_module("speechft.bench.command")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench, "_measure", _parsed)
            expect(lambda: bench._command(list(words[1:])))
    elif words[0] == "scripts/demo":
        reach(["demo", *words[1:]])
    elif words[0] == "scripts/reproduce":
        reproduce = import_module("speechft.reproduce.command")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reproduce, "plan", _reached)
            patch.setattr("speechft.reproduce.request._read", lambda file: {})
            expect(lambda: reproduce._command([word for word in words[1:] if word != "..."]))
    elif words[0] == "scripts/docs":
        assert words[1:2] in ([], ["build"], ["serve"])
    elif words[0] == "scripts/study":
        study = import_module("speechft.study.command")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study, "run_plan", _reached)
            patch.setattr("speechft.study.page.write_page", _reached)
            patch.setattr(study, "_named", lambda word: word.partition("=")[::2])
            expect(lambda: study._command(list(words[1:])))
    elif words[0] == "scripts/compare_strategies":
        _compare(words[1:])
    elif path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python"):
        _python_script(path, list(words[1:]))
    else:
        assert words[0] in ("scripts/test", "scripts/setup"), f"whether {words[0]} takes these words is not checked"


def _python_script(path: Path, words: list[str]) -> None:
    """Its own parser reads the words, and nothing after it runs."""
    loader = SourceFileLoader(f"script_{path.name}", str(path))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser) -> None:
        parse(parser, words)
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        loader.exec_module(module)
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        expect(module.main)


def _compare(words: Sequence[str]) -> None:
    known = set(re.findall(r"^ +(--\w+)\)", (ROOT / "scripts" / "compare_strategies").read_text(), re.MULTILINE))
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("--"):
            assert word in known and left, f"scripts/compare_strategies has no {word}"
            left.pop(0)
        elif "=" not in word:
            assert word in group_names("strategy"), f"there is no strategy {word!r}"


def _parsed(name: str, arguments: Any) -> None:
    del name, arguments
    raise Reached


def _pip(words: Sequence[str]) -> None:
    known = import_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
    for word in words:
        if word.startswith("speechft["):
            for extra in word.partition("[")[2].rstrip("]").split(","):
                assert extra in known or extra == "...", f"speechft has no extra {extra!r}"


def import_toml(path: Path) -> dict[str, Any]:
    """A TOML file; Python 3.10 has no reader of its own."""
    try:
        toml = import_module("tomllib")
    except ModuleNotFoundError:
        toml = pytest.importorskip("tomli")
    return dict(toml.loads(path.read_text(encoding="utf-8")))


def reach(words: Sequence[str]) -> None:
    """`speechft WORDS`, until the work would begin.

    `...` in the place of words, or of a value, stands for what the page leaves out, and `data.KEY=PATH` for any key.

    Raises:
        UsageError: the command would be refused.
    """
    shortened = any("..." in word for word in words)
    words = [word.replace("...", "left/out") for word in words if word != "..." and not word.startswith("data.KEY=")]
    if not words or words[0] in ("--help", "--version"):
        return
    assert words[0] in VERBS, f"speechft has no command {words[0]!r}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            _stop_before_work(patch)
            expect(lambda: import_module(VERBS[words[0]][0]).run(words[1:]))
    except UsageError as error:
        if not (shortened and re.search("(has|have) no value", str(error))):
            raise


def expect(call: Callable[[], Any]) -> None:
    """Call a command that must come as far as its work, or be done with exit code 0."""
    try:
        assert call() == 0, "the command failed"
    except Reached:
        pass
    except SystemExit as leave:  # --help
        assert not leave.code


def _stop_before_work(patch: pytest.MonkeyPatch) -> None:
    """Replace what each command calls once it has read its words."""
    from speechft.config.compose import compose

    def home(module: str, name: str, stop: Any) -> None:
        patch.setattr(import_module(module), name, stop)

    def train(overrides: Any, out: Any = None) -> None:
        _train_settings(overrides if isinstance(overrides, dict) else compose("train", list(overrides)))
        raise Reached

    def sweep(primary: str, overrides: list[str], job: Any, folder: Path) -> None:
        from speechft.cli.sweep import first_values

        train(first_values(overrides))

    home("speechft.train.finetune", "finetune", train)
    home("speechft.train.check", "check", train)
    home("speechft.cli.sweep", "sweep", sweep)
    home("speechft.runs", "find_run", _run)
    home("speechft.train.state", "checkpoints", lambda folder: [Path("step-1")])
    home("speechft.merge.merge", "merge", _merge)
    home("speechft.merge.merge", "merge_run", _merge_run)
    home("speechft.cli.choose", "_parents", lambda *_: (None, {}, Path("out"), Path("out")))
    home("speechft.cli.choose", "_drift", _reached)
    home("speechft.cli.choose", "_superb", _choose_by_superb)
    home("speechft.cli.eval", "_estimate", _evaluation)
    home("speechft.analysis.analyze", "analyze", _analysis)
    home("speechft.checkpoints.convert", "convert", _reached)
    home("speechft.upstreams.load", "locate", Path)
    home("speechft.upstreams.own", "folder_of", _reached)
    home("speechft.report.report", "make_report", _report)
    home("speechft.doctor", "examine", _examine)
    home("speechft.upstreams.describe", "describe", _described)
    home("speechft.hub.push", "model_folder", _reached)
    home("speechft.demo.demo", "run_demo", _reached)


def _reached(*args: Any, **options: Any) -> None:
    raise Reached


def _run(path: Any = None) -> Any:
    from speechft.runs import Run

    class Finished(Run):
        def merged_models(self) -> list[Path]:
            return [self.merged / "alpha-0.25"]

    return Finished(Path(path or "runs/latest"))


def _train_settings(settings: dict[str, Any]) -> None:
    from speechft.strategies.build import build_strategy
    from speechft.train.options import read_trainer
    from speechft.upstreams.load import conventions

    build_strategy(settings["strategy"])
    if settings["upstream"].get("kind") is None:
        conventions(settings["upstream"])
    with contextlib.suppress(MissingExtraError):  # of a tracker
        read_trainer(settings["trainer"])


def known_upstream(name: str) -> None:
    """A name, or what stands for a place: with a slash, a suffix, or in capitals."""
    if not ("/" in name or "." in name or name.isupper()):
        assert name in group_names("upstream"), f"there is no upstream {name!r}"


def _merge(
    pretrained: Any, finetuned: Any, alphas: Any, method: str, out: Any, extrapolate: bool, to: Any = None,
    parameters: Any = None, alpha_at: Any = None, alpha_by_depth: Any = None, keep: Any = (), statistics: Any = None,
    corpus: Any = None, **others: Any,
) -> None:  # fmt: skip
    from speechft.merge.alphas import Choice, checked_alphas
    from speechft.merge.registry import method_named
    from speechft.merge.statistics import needed

    known_upstream(str(pretrained))
    if ".py:" in method:  # of the reader's own
        raise Reached
    chosen = method_named(method)
    chosen.read(parameters or {}, len(finetuned))
    needed(chosen, statistics, corpus)
    if alphas is not None:
        checked_alphas(alphas, extrapolate)
    Choice(alpha_at or {}, alpha_by_depth or (), keep).checked(extrapolate).per_tensor(_tensors(), 0.25)
    raise Reached


def _merge_run(
    run: Any, alphas: Any, method: str, out: Any, extrapolate: bool, to: Any, *, checkpoints: Any, **choices: Any
) -> None:
    _merge("hubert_base", checkpoints or [run.finetuned], alphas, method, out, extrapolate, to, **choices)


@cache
def _tensors() -> tuple[str, ...]:
    """Names of a base model's tensors, after the embedded one's; it has twelve layers."""
    from speechft.checkpoints.folder import read_folder
    from speechft.upstreams.load import ASSETS

    names = list(read_folder(ASSETS / "hubert_nano").state)
    first = [name for name in names if ".layers.0." in name]
    return (*names, *(name.replace(".layers.0.", f".layers.{layer}.") for layer in range(4, 12) for name in first))


def _choose_by_superb(arguments: Any, *others: Any) -> None:
    tasks = arguments.tasks.split(",") if arguments.tasks else None
    _evaluation([], tasks, None, Path("out"), _eval(others[-1]))


def _eval(overrides: Sequence[str]) -> dict[str, Any]:
    from speechft.config.compose import compose

    return compose("eval", overrides)


def _evaluation(
    upstreams: Sequence[str], tasks: Any, engine: Any, out: Path, settings: dict[str, Any], *others: Any
) -> None:
    from speechft.superb.settings import Settings
    from speechft.superb.tasks import NAMES

    for one in upstreams:
        known_upstream(one)
    settings = {**settings, "device": "cpu", "devices": None, "out": str(out), "tasks": tasks or settings["tasks"]}
    settings["engine"] = engine or settings["engine"]
    if settings["data"]["synthetic"]:
        from speechft.data.synthetic.sizes import SIZES

        assert settings["data"]["synthetic"] in SIZES, f"there is no synthetic corpus {settings['data']['synthetic']}"
        settings["data"]["synthetic"] = None
    if settings["tasks"] is None:  # those whose files are given; which, only the files say
        settings["tasks"] = list(NAMES)
    Settings.read(settings)
    raise Reached


def _analysis(words: Sequence[str], *others: Any) -> None:
    for word in words:
        known_upstream(word)
    raise Reached


def _report(paths: Any, out: Any, base: Any, reference: str, *others: Any) -> None:
    from speechft.figures import checked_formats
    from speechft.report.published import references

    checked_formats(others[-1])
    assert reference in references() or "." in reference, f"there is no reference {reference!r}"
    raise Reached


def _examine(overrides: Sequence[str]) -> None:
    _eval(overrides)
    raise Reached


def _described(source: str) -> None:
    known_upstream(source)
    raise Reached
