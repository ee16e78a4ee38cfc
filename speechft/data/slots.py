"""Slots inside a sentence: how SF writes them between characters, and its two metrics.

A sentence is its words, in capitals, and for each word the name of its slot, or `O`. Neighbouring words of one slot are
one value. It is written as characters, with a token before and after each value: `PLAY B-album BAD BAND E-album`. This
is SUPERB's slot filling (s3prl/downstream/ctc/text.py, `CharacterTextSlotEncoder`, and metric.py).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from speechft.errors import SpeechFTError

NO_SLOT = "O"
_SKIPPED = "?!.,;-"
"""A word that is a part of this is passed over, as by s3prl."""
_VALUE = re.compile(r"B-(\S+) (.+?) E-\1")


def characters() -> list[str]:
    """SUPERB's 28: space, the capital letters, the apostrophe; slots come after them."""
    return [" ", *map(chr, range(ord("A"), ord("Z") + 1)), "'"]


def slot_units(words: Sequence[str], slots: Sequence[str]) -> list[str]:
    """Characters and slot tokens (`B-album`, `E-album`) of a sentence; a token stands next to its value without space.

    Raises:
        SpeechFTError: not as many slots as words.
    """
    if len(words) != len(slots):
        raise SpeechFTError(f"{len(words)} words with {len(slots)} slots: {' '.join(words)[:40]!r}",
                            "give each word its slot, or O")  # fmt: skip
    units: list[str] = []
    for slot, run in itertools.groupby(zip(words, slots, strict=True), key=lambda pair: pair[1]):
        value = " ".join("AND" if word == "&" else word for word, _ in run if word not in _SKIPPED)
        if value:
            spoken = list(value) if slot == NO_SLOT else [f"B-{slot}", *value, f"E-{slot}"]
            units += [" ", *spoken] if units else spoken
    return units


def written(units: Iterable[str]) -> str:
    """Units as a line: a space after a token that begins a value, and before one that ends it."""
    return "".join(f"{unit} " if unit[:2] == "B-" else f" {unit}" if unit[:2] == "E-" else unit for unit in units)


def slot_values(line: str) -> dict[str, list[str]]:
    """Slot -> its values in a line, in their order; tokens left over inside a value are taken out."""
    found: dict[str, list[str]] = {}
    for name, value in _VALUE.findall(re.sub(" +", " ", line)):
        found.setdefault(name, []).append(re.sub(r" E-(\S+)", "", re.sub(r"B-(\S+) ", "", value)))
    return found


def slot_type_f1(pairs: Iterable[tuple[str, str]]) -> float:
    """The mean over utterances of the F1 of which slots occur, from 0 to 1; none where none is wanted is 1.

    Args:
        pairs: (what was said, what was heard), as `written` gives them.
    """
    scores = []
    for said, heard in pairs:
        wanted, given = slot_values(said).keys(), slot_values(heard).keys()
        both = len(wanted & given)
        scores.append(2 * both / (len(wanted) + len(given)) if wanted or given else 1.0)
    return sum(scores) / len(scores)


def slot_value_cer(pairs: Iterable[tuple[str, str]]) -> float:
    """Edits of characters over characters of the values said, each met with the nearest value heard for its slot.

    0 where nothing was to be found.

    Args:
        pairs: (what was said, what was heard), as `written` gives them.
    """
    import jiwer

    references, hypotheses = [], []
    for said, heard in pairs:
        given = slot_values(heard)
        for name, values in slot_values(said).items():
            for value in values:
                references.append(value)
                hypotheses.append(min(given.get(name, [""]), key=lambda other: float(jiwer.cer(value, other))))
    return float(jiwer.cer(references, hypotheses)) if references else 0.0
