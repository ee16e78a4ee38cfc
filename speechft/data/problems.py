"""What is wrong with utterances: collected, counted, listed in a file, and said in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechft.errors import SpeechFTError
from speechft.files import write_text

KINDS = ("missing", "unreadable", "empty", "outside", "short", "long", "label", "duplicate")
"""No file; no audio, or other audio than a manifest says; nothing in it; a part beyond the file's end; the durations
that `data.checks` gives; no label, an empty one, or one that the task cannot learn; also in the other split, or twice
in one."""


@dataclass(frozen=True)
class Problem:
    """An utterance that cannot be used as it is.

    Attributes:
        split: `train` or `dev`.
        kind: one of `KINDS`.
        reason, mend: what is wrong, and what to do about it.
    """

    split: str
    id: str
    kind: str
    reason: str
    mend: str = ""


def counted(problems: Sequence[Problem]) -> str:
    """`3 missing, 1 label`."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def write_listing(path: Path, problems: Sequence[Problem]) -> Path:
    """A line for each: split, id, kind and reason, tab-separated."""
    rows = ("\t".join((one.split, one.id, one.kind, one.reason)) for one in problems)
    return write_text(path, "".join(f"{row}\n" for row in rows))


def together(errors: Sequence[SpeechFTError]) -> SpeechFTError:
    """Several errors as one line; the same one counts once."""
    different = list({error.what: error for error in errors}.values())
    if len(different) == 1:
        return different[0]
    mends = list(dict.fromkeys(error.mend for error in different if error.mend))
    return SpeechFTError("; ".join(error.what for error in different), "; ".join(mends))


def refusal(problems: Sequence[Problem], listing: Path | None = None, left: bool = True) -> SpeechFTError:
    """The error that stops what would have used them: the first of the kind that most of them are of.

    Args:
        problems: all.
        listing: where they are listed.
        left: whether anything would be left without them.
    """
    counts = Counter(problem.kind for problem in problems)
    first = next(one for one in problems if counts[one.kind] == max(counts.values()))
    skip = "set data.skip_bad=true" if len(problems) == 1 else "leave out what is bad: data.skip_bad=true"
    if len(problems) == 1 and listing is None:
        return SpeechFTError(first.reason, f"{first.mend or 'mend it'}{f', or {skip}' if left else ''}")
    others = f", and {len(problems) - 1} more cannot be used ({counted(problems)})" if len(problems) > 1 else ""
    listed = f" (listed in {listing})" if listing is not None else ""
    mend = first.mend if first.mend and {one.mend for one in problems} == {first.mend} else "mend them"
    return SpeechFTError(f"{first.reason}{others}", f"{mend}{listed}{f', or {skip}' if left else ''}")
