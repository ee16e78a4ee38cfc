"""What models are compared on: a folder of audio, a table, or the synthetic corpus's test set, as a stream of waves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from speechft.console import say
from speechft.data.audio import audio_info, load_audio
from speechft.errors import SpeechFTError, UsageError
from speechft.files import sha256_file, sha256_json

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_AUDIO = "synthetic:smoke"
"""Needs no file: the test set of the synthetic corpus's small size."""
LONGEST = 30.0
"""Seconds; longer recordings are heard in pieces of equal length, so that memory stays bounded."""
_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".sph", ".caf", ".w64")
_SPLIT = "test-clean"


@dataclass(frozen=True)
class Piece:
    """A part of a file, in seconds."""

    path: Path
    start: float
    seconds: float


@dataclass(frozen=True)
class AudioSet:
    """Audio that is read piece by piece.

    Attributes:
        source: what the user said.
        pieces: longest first, so that neighbours fit together in a batch.
        utterances: how many there were before long ones were cut.
        left_out: why each of the others could not be heard.
        sha256: of the files' bytes and of how they are cut; names do not matter.
    """

    source: str
    pieces: tuple[Piece, ...]
    utterances: int
    sha256: str
    left_out: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(piece.seconds for piece in self.pieces)

    def waves(self) -> Iterator[Tensor]:
        """1-D float32 waveforms at 16 kHz, one at a time.

        Raises:
            SpeechFTError: a file that cannot be read.
        """
        for piece in self.pieces:
            yield load_audio(piece.path, piece.start, piece.seconds)


def audio_set(source: str | Path = DEFAULT_AUDIO, utterances: int | None = None) -> AudioSet:
    """The audio behind a word of the command line. What cannot be heard is left out, and said.

    Args:
        source: a folder (all audio files below it), one audio file, a table (as `data/readers/tables.py` reads it,
            parts of files included), or `synthetic:SIZE`, the test set of the synthetic corpus.
        utterances: take only so many, evenly spread over the sorted list; None takes all.

    Raises:
        UsageError: nothing of the kind; a number below 1.
        SpeechFTError: no audio in it, or none that can be read.
    """
    if utterances is not None and utterances < 1:
        raise UsageError(f"{utterances} utterances are none", "give at least 1")
    parts = _parts(str(source))
    if not parts:
        raise SpeechFTError(f"{source} holds no audio", f"audio is {', '.join(_SUFFIXES[:5])} ... below that folder")
    if utterances is not None and utterances < len(parts):
        parts = [parts[index * len(parts) // utterances] for index in range(utterances)]
    pieces: list[Piece] = []
    errors: list[SpeechFTError] = []
    marks, hashes = [], {}
    for path, start, end in parts:
        try:
            own, stop = _pieces(path, start, end)
        except SpeechFTError as error:
            errors.append(error)
            continue
        pieces += own
        if path not in hashes:
            hashes[path] = sha256_file(path)
        marks.append([hashes[path], round(start, 6), round(stop, 6)])
    if not pieces:
        raise errors[0]
    if errors:
        say(f"{len(errors)} of {len(parts)} utterances of {source} are left out: {errors[0].what}"
            f"{' ...' if len(errors) > 1 else ''}")  # fmt: skip
    pieces.sort(key=lambda piece: -piece.seconds)  # stable: pieces of one length stay in the list's order
    key = sha256_json([LONGEST, sorted(marks)])
    return AudioSet(str(source), tuple(pieces), len(marks), key, tuple(error.what for error in errors))


def _pieces(path: Path, start: float, end: float | None) -> tuple[list[Piece], float]:
    """A part of a file in pieces, and where it ends, in seconds."""
    header = audio_info(path)
    stop = header.seconds if end is None else min(end, header.seconds)
    if not 0 <= start < stop:
        raise SpeechFTError(f"{path} has no audio from {start:g} to {stop:g} s", "mend the table, or remove the file")
    count = math.ceil((stop - start) / LONGEST)
    whole = round((stop - start) * header.rate)  # cut between samples, so that none is heard twice
    cuts = [start + round(number * whole / count) / header.rate for number in range(count + 1)]
    return [Piece(path, one, after - one) for one, after in pairwise(cuts)], stop


def _parts(source: str) -> list[tuple[Path, float, float | None]]:
    """Files with start and end in seconds (None: the file's own end), sorted."""
    if source == "synthetic" or source.startswith("synthetic:"):
        return _synthetic(source.partition(":")[2] or DEFAULT_AUDIO.partition(":")[2])
    path = Path(source).expanduser()
    if path.is_dir():
        files = (one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES and not one.name.startswith("."))
        return [(one, 0.0, None) for one in sorted(files) if one.is_file()]
    if path.suffix.lower() in (".tsv", ".csv", ".jsonl"):
        from speechft.data.readers.tables import table

        rows = sorted(table(str(path), text=None), key=lambda row: row.id)
        return [(row.path, row.start, row.end) for row in rows]
    if path.is_file():
        return [(path, 0.0, None)]
    raise UsageError(f"audio {source} does not exist", "give a folder, a table (.tsv, .csv, .jsonl), or synthetic:SIZE")


def _synthetic(size: str) -> list[tuple[Path, float, float | None]]:
    from speechft.console import progress
    from speechft.data.synthetic.corpus import make_corpus
    from speechft.data.synthetic.sizes import SIZES

    known = [name for name, one in SIZES.items() if one.test_clean]
    if size not in known:
        raise UsageError(f"the synthetic corpus has no test set of size {size!r}", f"choose one of {', '.join(known)}")
    with progress("making the synthetic corpus", 100) as advance:
        corpus = make_corpus(size, progress=lambda done, total: advance(100 * done // max(1, total), "%"))
    return [(path, 0.0, None) for path in sorted((corpus.librispeech / _SPLIT).rglob("*.flac"))]
