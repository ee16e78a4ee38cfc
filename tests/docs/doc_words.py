"""From bash in a page to the words of its commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_KEYWORDS = {"do", "then", "else", "if", "while", "!"}


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a piece of bash, each as words; variables have the first value that the piece gives them.

    Raises:
        ValueError: quotes that do not end.
    """
    text = re.sub(r"\\\n\s*", " ", text)
    text = re.sub(r"\$\([^)]*\)", "value", text)
    values: dict[str, str] = {}
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split, lexer.commenters = True, ""
        words: list[str] = []
        for word in lexer:
            if word.startswith("#"):
                break
            if set(word) <= set(";&|"):
                yield from _simple(words, values)
                words = []
            else:
                words.append(word)
        yield from _simple(words, values)


def _simple(words: list[str], values: dict[str, str]) -> Iterator[list[str]]:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    for place, word in enumerate(words):
        if set(word) <= set("<>"):
            words = words[:place]
            break
    if not words or words[0] in ("done", "fi"):
        return
    if words[0] == "for":
        values[words[1]] = words[3]
        return
    words = [re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found.group(1), found.group(1)), word) for word in words]
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        key, _, value = words[0].partition("=")
        values[key] = value
        words = words[1:]
    if words:
        yield words
