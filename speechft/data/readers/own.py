"""A reader of the user's own: a function in a file that gives utterances."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from speechft.data.readers.base import Utterance
from speechft.errors import SpeechFTError, UsageError
from speechft.own import load_own


def own_reader(where: str) -> Callable[..., list[Any]]:
    """The function that `path/to/file.py:name` or `package.module:name` names, with a look at what it gives.

    Raises:
        UsageError: no such function; called, it raises that it does not take these options, or gives something else
            than utterances or cuts.
        SpeechFTError: called, it fails.
    """
    read = load_own(where, "data", "reader", "a function that gives utterances", inspect.isfunction)

    def checked(**options: Any) -> list[Any]:
        try:
            inspect.signature(read).bind(**options)
        except TypeError as error:
            raise UsageError(f"corpus kind {where}: {error}", "check the options of this entry of data") from error
        try:
            found = list(read(**options))
        except SpeechFTError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise SpeechFTError(f"corpus kind {where} fails ({type(error).__name__}: {error})",
                                "run again with --debug to see where") from error  # fmt: skip
        for item in found:
            if not isinstance(item, Utterance) and not hasattr(item, "supervisions"):
                raise UsageError(f"corpus kind {where} gives {type(item).__name__}",
                                 "give speechft.data.readers.base.Utterance, or lhotse's cuts")  # fmt: skip
        return found

    return checked
