"""Looking at what the user gives to a task: settings, paths, lists. Phrases say what is wrong, one line joins them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError, UsageError

SYNTHETIC = (
    "librispeech", "lexicon", "phones", "voxceleb1", "iden_split", "speech_commands", "speech_commands_test",
)  # fmt: skip
"""Paths that the synthetic corpus can fill."""

_FILES = ("lexicon", "iden_split", "voxceleb1_trials")  # what is given and is no folder
_WHOLE = (
    "steps", "batch_size", "accumulate", "eval_step", "log_step", "save_step", "crops", "project_dim",
    "eval_batch_size", "chunk_frames", "num_speakers", "rnn_layers", "n_fft", "win_length", "hop_length", "workers",
)  # fmt: skip
_OPEN = ("crops", "hop_length", "workers")  # may be null
_ABOVE_0 = ("clip", "crop_seconds")
_FROM_0 = ("crop_hours", "min_seconds", "dropout", "num_workers")


def check_settings(task: str, settings: Mapping[str, Any], known: set[str]) -> None:
    """Raise one line about keys that are too many or too few, and values that cannot be meant.

    Raises:
        UsageError: the first of them.
    """
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UsageError(f"superb.{task} has no {', '.join(unknown)}", f"known: {', '.join(sorted(known))}")
    absent = sorted(known - set(settings))
    if absent:
        raise UsageError(f"superb.{task} lacks {', '.join(absent)}", "see configs/superb")
    given = {key: value for key, value in settings.items() if not (value is None and key in _OPEN)}
    for key in given.keys() & {*_WHOLE}:
        whole_numbers(f"superb.{task}.{key}", given[key], 1)
    for key in given.keys() & {*_ABOVE_0, *_FROM_0}:
        number(f"superb.{task}.{key}", given[key], zero=key in _FROM_0)
    for key in given.keys() & {"rnn_dims"}:
        whole_numbers(f"superb.{task}.{key}", given[key], 1, several=True)
    _check_optimizer(task, given.get("optimizer"))


def number(key: str, value: Any, zero: bool = False) -> float:
    """A finite number above 0, or 0 too.

    Raises:
        UsageError: it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (0 < found < math.inf or (zero and found == 0)):
        raise UsageError(f"{key}={value} is not {'0 or more' if zero else 'above 0'}", "give a positive number")
    return found


def whole_numbers(key: str, value: Any, least: int, several: bool = False) -> list[int]:
    """A whole number (1e4 is one), or a list of them.

    Raises:
        UsageError: one is none, or below `least`; a list where one is wanted; an empty list.
    """
    values = list(value) if several and isinstance(value, (list, tuple)) else [value]
    try:
        found = [int(one) for one in values if float(one) == int(one) >= least]
    except (TypeError, ValueError, OverflowError):
        found = []
    if not values or len(found) < len(values):
        what = (
            f"whole numbers from {least} on, as [{least},{least + 1}]" if several else f"a whole number from {least} on"
        )
        raise UsageError(f"{key}={value} is not {what}", "give another")
    return found


def _check_optimizer(task: str, name: Any) -> None:
    import torch

    if name is not None and not hasattr(torch.optim, str(name)):
        raise UsageError(f"superb.{task}.optimizer={name} is none of torch.optim", "Adam, AdamW, SGD ...")


def wrong_paths(key: str, paths: Sequence[Path], what: str) -> list[str]:
    """Phrases about the paths under a key of `data`: none given, missing, a folder for a file or a file for a folder.

    Args:
        what: what belongs there and where to get it.
    """
    if not paths:
        return [f"data.{key} is not set ({what})"]
    wanted = "file" if key in _FILES else "folder"
    return [
        f"data.{key}={path} {f'is no {wanted}' if path.exists() else 'does not exist'} ({what})"
        for path in paths
        if not (path.is_file() if wanted == "file" else path.is_dir())
    ]


def absent_of(names: Sequence[str], whole: int, where: str) -> list[str]:
    """A phrase about audio that is not there: how many of how many, and the first of them; none if all are."""
    if not names:
        return []
    shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    return [f"{len(names)} of the {whole} utterances of {where} have no audio file ({shown})"]


def read_list(path: Path, what: str) -> list[list[str]]:
    """The words of each line of a list that the user gives; blank lines are left out.

    Raises:
        SpeechFTError: it is no text.
    """
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SpeechFTError(f"{path} should be {what}, but cannot be read as text ({error})", "replace it") from error
