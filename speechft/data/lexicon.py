"""Pronunciation lexicons in LibriSpeech's format: a word, then its phones, separated by white space."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from speechft.errors import SpeechFTError


def read_lexicon(paths: str | Path | Iterable[str | Path]) -> dict[str, list[str]]:
    """Word (upper case) -> phones. Of several pronunciations the first counts, as SUPERB's PR does.

    Args:
        paths: a file, or several, taken in their order.

    Raises:
        SpeechFTError: missing, unreadable, or a line without phones.
    """
    lexicon: dict[str, list[str]] = {}
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise SpeechFTError(
                f"lexicon {path} is missing", "give LibriSpeech's librispeech-lexicon.txt (openslr.org/11) or your own"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise SpeechFTError(f"lexicon {path} cannot be read ({error})", "check the path") from error
        for number, line in enumerate(lines, 1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise SpeechFTError(f"{path} line {number}: {word} has no phones", "a line is WORD PH PH ...")
            if word:
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
