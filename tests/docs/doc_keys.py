"""Every key and every option that there is, for what sentences say of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import pytest
import yaml
from doc_commands import Reached, expect

from speechft.cli.main import VERBS
from speechft.config.locate import config_dir

FOREIGN_OPTIONS = {"--nproc_per_node", "--node_rank", "--nnodes", "--multi_gpu", "--num_processes"}
"""Of torchrun and accelerate."""


@cache
def keys() -> frozenset[str]:
    """Every key that an override may have: of any choice of any group, and of the evaluation."""
    found: set[str] = {"seed", "after", "name", "allow_changed_config"}
    for path in config_dir().rglob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8").replace("???", "null")) or {}
        group = path.parent.relative_to(config_dir()).parts
        prefix = "superb." + path.stem + "." if group == ("superb",) else ""
        if not prefix and group and group[0] != "experiment":
            prefix = f"{group[0]}."
        found.update(_flat(content, prefix))
    return frozenset(found)


def _flat(content: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


@cache
def options() -> frozenset[str]:
    """Every option of every command and bench."""
    from speechft.cli.arguments import Parser

    found: set[str] = {"--help", "--version"}

    def seen(self: Any, *args: Any, **others: Any) -> None:
        found.update(self._option_string_actions)
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", seen)
        patch.setattr(Parser, "parse_intermixed_args", seen)
        for verb, (module, _) in VERBS.items():
            expect(lambda module=module, verb=verb: import_module(module).run(["superb"] if verb == "eval" else []))
        bench = import_module("speechft.bench.command")
        for name in bench.NAMES:
            expect(lambda name=name: bench._command([name]))
        expect(lambda: import_module("speechft.reproduce.command")._command([]))
    return frozenset(found)
