"""Shares of a corpus by a hash of names: any corpus can be split without a list, and stays split so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from speechft.errors import SpeechFTError


def filled(low: float, high: float, places: Mapping[str, float]) -> tuple[float, float]:
    """A share from 0 on, or up to 1, moved so that it and the rest have one of them each: ten speakers have none above
    0.9 in a third of all cases. Both sides of a bound move with it, so that they stay apart."""

    def moved(bound: float) -> float:
        ordered = sorted(places.values())
        if len(ordered) < 2 or not 0 < bound < 1:
            return bound
        return min(max(bound, ordered[1]) if bound <= ordered[0] else bound, ordered[-1])

    return (moved(low) if high >= 1 else low), (moved(high) if low <= 0 else high)


def nobody(places: Mapping[str, float], share: tuple[float, float], split_by: str) -> SpeechFTError:
    """The error of a share that none falls into, and what to do."""
    what = (
        f"of {len(places)} {split_by} none falls"
        if len(places) > 1
        else f"the only one of the {split_by} does not fall"
    )
    mend = "data.train_speakers=null data.dev=null holds out nothing"
    if split_by == "speakers":
        mend += "; data.split_by=utterances splits within speakers"
    return SpeechFTError(f"{what} into the share [{share[0]:g}, {share[1]:g}]", mend)


def split_position(name: str) -> float:
    """The place of a speaker or an utterance in [0, 1), fixed by its name: a way to split any corpus without a list."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12
