"""What all commands share: their parser, and the options every one of them has."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NoReturn

from speechft.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are ours: one line, exit code 2."""

    def __init__(self, verb: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"speechft {verb}", description=description, epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see {self.prog} --help")


def check_overrides(words: list[str]) -> list[str]:
    """Hydra overrides look like `key=value`, `+key=value`, `~key`.

    Raises:
        UsageError: a word that does not.
    """
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"{word!r} is no override", "overrides are written key=value, such as trainer.steps=100")
    return words


def result(as_json: bool, value: Any, lines: list[str]) -> None:
    """Print a command's result on stdout: JSON for machines, lines for people."""
    if as_json:
        json.dump(value, sys.stdout, ensure_ascii=False, default=str)
        sys.stdout.write("\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()
