"""Transcripts as letters."""

from __future__ import annotations

import re
import unicodedata


def letters(text: str) -> str:
    """A transcript as capital letters: no marks such as `[noise]`, no digits, no punctuation but apostrophes.

    A hyphen becomes a space, and a space before an apostrophe goes (`it 's`). For English it is what the paper's code
    does with TED-LIUM 3.
    """
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|<[^>]*>", " ", text).replace("’", "'").upper()
    text = text.replace(" '", "'").replace("-", " ")
    return " ".join("".join(c for c in text if c in " '" or unicodedata.category(c)[0] in "LM").split())
