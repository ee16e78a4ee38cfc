"""What goes wrong, said in one line: WHAT happened and HOW TO MEND IT.

The command line prints an error as ``speechft: error: WHAT; HOW TO MEND IT`` and leaves with the error's exit code.
"""

from __future__ import annotations

from typing import Any


class SpeechFTError(Exception):
    """Something failed while working; the command leaves with exit code 1.

    Args:
        what: what happened, in the user's words, naming the file or the value.
        mend: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = " ".join(str(what).split())
        self.mend = " ".join(str(mend).split())
        super().__init__(f"{self.what}; {self.mend}" if self.mend else self.what)

    def of(self, where: str) -> SpeechFTError:
        """The same error, of the same kind, that says first what it is about."""
        return _rebuilt(type(self), f"{where}: {self.what}", self.mend)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process boundaries; rebuilding them from their message alone would not fit every constructor.
        return _rebuilt, (type(self), self.what, self.mend)


def _rebuilt(kind: type[SpeechFTError], what: str, mend: str) -> SpeechFTError:
    error = kind.__new__(kind)
    SpeechFTError.__init__(error, what, mend)
    return error


class UsageError(SpeechFTError):
    """The command was typed wrongly (an unknown override, a value out of range); exit code 2."""

    exit_code = 2


class Interrupted(SpeechFTError):
    """Somebody asked to stop; what was done is kept."""


class DiskFullError(SpeechFTError):
    """Nothing more can be written where the work goes."""


class MissingExtraError(SpeechFTError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs {package}, which is not installed", f"pip install 'speechft[{extra}]'")
