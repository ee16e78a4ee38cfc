"""What all commands share: their parser, and the options every one of them has."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from typing import Any, NoReturn

from speechft.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are ours: one line, exit code 2.

    Args:
        verb: the command.
        description, epilog: of its help.
        primary: the configuration whose keys its overrides are.
    """

    def __init__(self, verb: str, description: str, epilog: str = "", primary: str | None = None) -> None:
        super().__init__(
            prog=f"speechft {verb}", description=description, epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        self._primary = primary
        self.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"{self._meant(message)}see {self.prog} --help")

    def _meant(self, message: str) -> str:
        """What an unknown option was perhaps meant to be: another option, or a key of the configuration."""
        found = re.match(r"unrecognized arguments: --?([\w-]+)", message)
        if not found:
            return ""
        word = found.group(1)
        if close := difflib.get_close_matches(f"--{word}", self._option_string_actions, 1, 0.8):
            return f"did you mean {close[0]}? "
        if self._primary is None:
            return ""
        from speechft.config.compose import keys_called

        keys = keys_called(self._primary, word.replace("-", "_"))
        settings = f"did you mean {' or '.join(f'{key}=...' for key in keys[:3])}? " if keys else ""
        return f"{settings}settings are written key=value, without dashes; "


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
