"""What s3prl/downstream/asr wants beside LibriSpeech: a dictionary of characters, and the lengths of utterances."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from speechft.errors import SpeechFTError
from speechft.files import write_text

_OFFICIAL = "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"


def official_characters() -> list[str]:
    """SUPERB's 28, the most frequent of train-clean-100 first; `|` ends a word."""
    return list(_OFFICIAL)


def vocabulary(sentences: Iterable[str]) -> list[str]:
    """The official characters if they cover the sentences, else those the sentences use, the most frequent first.

    Equally frequent ones are in the order of the alphabet, as in s3prl's `Dictionary.finalize`.
    """
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update("|".join([*sentence.upper().split(), ""]) or "|")
    if set(counts) <= set(_OFFICIAL):
        return official_characters()
    return sorted(counts, key=lambda character: (-counts[character], character))


def write_dictionary(path: Path, characters: Sequence[str]) -> Path:
    """A line of symbol and count each; s3prl makes no use of the count."""
    return write_text(path, "".join(f"{character} 1\n" for character in characters))


def write_lengths(folder: Path, root: Path, split: str, audio: Iterable[Path]) -> Path:
    """`SPLIT.csv`: path below `root` and length in samples of each utterance, the longest first.

    s3prl's own list (preprocess/generate_len_for_bucket.py) leaves equal lengths in the file system's order; here they
    are in the order of their paths.

    Raises:
        SpeechFTError: an unreadable file, or one that is not at SPEAKER/CHAPTER/ beside SPEAKER-CHAPTER.trans.txt.
    """
    from speechft.data.audio import audio_info

    rows = []
    for path in audio:
        chapter = path.parent
        if not (chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt").is_file():
            raise SpeechFTError(
                f"{chapter} has no {chapter.parent.name}-{chapter.name}.trans.txt",
                "arrange the corpus as SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac",
            )
        rows.append((path.relative_to(root).as_posix(), audio_info(path).samples))
    rows.sort(key=lambda row: (-row[1], row[0]))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("file_path", "length"), *rows])
    return write_text(folder / f"{split}.csv", table.getvalue())
