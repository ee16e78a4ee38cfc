"""What every reader of a corpus gives, and how it says that something is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from speechft.errors import SpeechFTError


@dataclass(frozen=True)
class Utterance:
    """One line of a corpus: where the audio is, and what is known of it.

    Attributes:
        id: unique in its split.
        path: the audio file.
        text: transcript.
        speaker, gender, language: as the corpus names them.
        labels: everything else by its name: `phones`, `keyword`, `emotion`, `action`, `object`, `location`, `slots` are
            what the tasks look for; they become `supervision.custom` of the cut.
        start, end: the part of the file that is meant, in seconds; `end` None is the file's end.
    """

    id: str
    path: Path
    text: str | None = None
    speaker: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    start: float = 0.0
    end: float | None = None
    gender: str | None = None
    language: str | None = None


def corpus_folder(root: str | Path, what: str, where: str, holds: Iterable[str] = ()) -> Path:
    """The corpus's folder, once it is sure that the parts named are in it.

    Args:
        root: what the user gave.
        what: the corpus's name.
        where: how to get it, and which of its folders is asked for.
        holds: files and folders that must be there, relative to the root.

    Raises:
        SpeechFTError: no such folder, or parts of it are missing; all of them are named.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise SpeechFTError(f"{what} is missing: there is no folder {folder}", where)
    absent = [name for name in holds if not (folder / name).exists()]
    if absent:
        raise SpeechFTError(f"{what} in {folder} has no {', '.join(absent)}", where)
    return folder


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file, without those that are empty.

    Raises:
        SpeechFTError: unreadable.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SpeechFTError(f"{what} {path} cannot be read ({error})", "get the corpus's own file again") from error


def wrong_layout(what: str, folder: Path, expected: str, where: str) -> SpeechFTError:
    """The error of a folder that holds nothing of the layout."""
    return SpeechFTError(f"{what} in {folder} has another layout: expected {expected}", where)
