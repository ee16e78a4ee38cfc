"""Phones: espeak-ng's mnemonics in the field's own spelling, and the lexicon of everything the corpus can say."""

from __future__ import annotations

from functools import lru_cache

from speechft.data.synthetic import sentences
from speechft.data.synthetic.espeak import speak

_TABLE = {
    # vowels
    "i": "IY", "i:": "IY", "I": "IH", "I2": "IH", "I#": "IH", "E": "EH", "a": "AE", "aa": "AE", "0": "AA", "A:": "AA",
    "O2": "AA", "O:": "AO", "O": "AO", "V": "AH", "@": "AX", "@2": "AX", "@-": "AX", "a#": "AX", "3": "ER", "3:": "ER",
    "U": "UH", "u:": "UW", "u": "UW", "eI": "EY", "aI": "AY", "OI": "OY", "aU": "AW", "oU": "OW",
    # vowels with an r or a second vowel: two phones
    "A@": "AA R", "e@": "EH R", "O@": "AO R", "o@": "AO R", "U@": "UH R", "i@": "IY AX", "i@3": "IH R", "aI@": "AY AX",
    "aI3": "AY ER", "@L": "AX L", "n-": "AX N",
    # consonants
    "p": "P", "b": "B", "t": "T", "t2": "T", "?": "T", "t#": "DX", "d": "D", "k": "K", "g": "G", "tS": "CH", "dZ": "JH",
    "f": "F", "v": "V", "T": "TH", "D": "DH", "s": "S", "z": "Z", "S": "SH", "Z": "ZH", "h": "HH", "m": "M", "n": "N",
    "N": "NG", "l": "L", "r": "R", "w": "W", "j": "Y", ";": "Y",
}  # fmt: skip


def phone_names(mnemonics: tuple[str, ...]) -> list[str]:
    """espeak-ng's mnemonics as phone names: ASCII, no whitespace, one phone each.

    Allophones that only their neighbours decide fall together; a vowel with an r becomes two phones. A mnemonic that
    is not in the table keeps its letters and digits and spells the rest by code.
    """
    names: list[str] = []
    for mnemonic in mnemonics:
        spelled = _TABLE.get(mnemonic)
        if spelled is None:
            spelled = "X" + "".join(c if c.isascii() and c.isalnum() else f"{ord(c):02x}" for c in mnemonic)
        names += spelled.split()
    return names


@lru_cache(maxsize=1)
def _spoken() -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((word, speak(word).phonemes) for word in sorted(sentences.vocabulary()))


def make_lexicon() -> dict[str, list[str]]:
    """Every word of the corpus in upper case, with its phones as espeak-ng says it alone; in alphabetical order.

    It holds the whole vocabulary whatever the corpus's size, so that all corpora share one list of phones.
    """
    return {word.upper(): phone_names(mnemonics) for word, mnemonics in _spoken()}
