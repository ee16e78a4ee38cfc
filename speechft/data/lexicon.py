"""Pronunciation lexicons in LibriSpeech's format: a word, then its phones, separated by white space."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from speechft.errors import SpeechFTError


def read_lexicon(path: str | Path) -> dict[str, list[str]]:
    """Word (upper case) -> phones. Of several pronunciations the first counts, as SUPERB's PR does.

    Raises:
        SpeechFTError: missing, or a line without phones.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SpeechFTError(
            f"lexicon {path} is missing", "give LibriSpeech's librispeech-lexicon.txt (openslr.org/11) or your own"
        ) from error
    except UnicodeDecodeError as error:
        raise SpeechFTError(f"lexicon {path} is not UTF-8 text", "check the path") from error
    lexicon: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, *phones = line.split()
        if not phones:
            raise SpeechFTError(f"line {number} of lexicon {path} has a word and no phones", "mend or remove the line")
        lexicon.setdefault(word.upper(), phones)
    return lexicon


def pronounce(text: str, lexicon: dict[str, list[str]]) -> list[str]:
    """The phones of a sentence.

    Raises:
        KeyError: a word that is not in the lexicon.
    """
    return [phone for word in text.upper().split() for phone in lexicon[word]]


def missing_words(texts: Iterable[str], lexicon: dict[str, list[str]]) -> list[str]:
    """Words of the texts that the lexicon lacks, sorted."""
    return sorted({word for text in texts for word in text.upper().split()} - lexicon.keys())
