"""Looking at what the user gives to a task: settings, paths, lists. Phrases say what is wrong, one line joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError, UsageError

SYNTHETIC = (
    "librispeech", "lexicon", "phones", "voxceleb1", "iden_split", "speech_commands", "speech_commands_test",
)  # fmt: skip
"""Paths that the synthetic corpus can fill."""

_FILES = ("lexicon", "iden_split", "voxceleb1_trials")  # what is given and is no folder
_AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "eval_step", "log_step", "save_step", "crops")


def check_settings(task: str, settings: Mapping[str, Any], known: set[str]) -> None:
    """Raise one line about keys that are too many or too few, and numbers below 1.

    Raises:
        UsageError: the first of them.
    """
    unknown = sorted(set(settings) - known)
    if unknown:
        raise UsageError(f"superb.{task} has no {', '.join(unknown)}", f"known: {', '.join(sorted(known))}")
    absent = sorted(known - set(settings))
    if absent:
        raise UsageError(f"superb.{task} lacks {', '.join(absent)}", "see configs/superb")
    for key in _AT_LEAST_ONE:
        if key == "crops" and settings.get(key) is None:  # left to Crops.of
            continue
        if key in settings and int(settings[key]) < 1:
            raise UsageError(f"superb.{task}.{key}={settings[key]} is below 1", "give a positive number")
    if not float(settings.get("crop_hours", 0)) >= 0:
        raise UsageError(f"superb.{task}.crop_hours={settings['crop_hours']} is below 0", "give hours, or 0")


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
