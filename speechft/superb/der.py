"""Diarization error rate, and the speaker turns that frame-wise probabilities stand for.

What SUPERB's SD reports is computed outside s3prl's expert (s3prl's diarization/score.sh): make_rttm.py turns the
predictions into turns for ten pairs of threshold and median filter, dscore's md-eval scores them without a collar and
with overlapping speech, and the lowest error rate over the test set counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechft.errors import SpeechFTError

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIANS = (1, 11)

Turn = tuple[float, float, str]
"""Start and end in seconds, speaker."""


@dataclass(frozen=True)
class Errors:
    """Speaker time in seconds: two speakers at once count twice.

    Attributes:
        scored: of the reference.
        missed: speakers of the reference beyond the number found.
        false_alarm: speakers found beyond the number in the reference.
        confusion: speakers found in the place of others.
    """

    scored: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0

    @property
    def total(self) -> float:
        return self.missed + self.false_alarm + self.confusion


def diarization_errors(reference: Sequence[Turn], hypothesis: Sequence[Turn]) -> Errors:
    """Compare the turns of one recording (NIST RT-09 evaluation plan, section 6.1; md-eval without a collar).

    Names need not agree: speakers are mapped one to one so that mapped ones speak together as long as possible. Turns
    of one speaker that overlap are one turn.
    """
    from scipy.optimize import linear_sum_assignment

    times = np.unique([time for start, end, _ in (*reference, *hypothesis) for time in (start, end)])
    seconds = np.diff(times)
    spoken, found = _activity(reference, times), _activity(hypothesis, times)
    together = (spoken * seconds[:, None]).T @ found.astype(np.float64)
    theirs, ours = linear_sum_assignment(together, maximize=True)
    correct = (spoken[:, theirs] & found[:, ours]).sum(axis=1)
    truth, guess = spoken.sum(axis=1), found.sum(axis=1)
    return Errors(
        scored=float(seconds @ truth),
        missed=float(seconds @ np.maximum(truth - guess, 0)),
        false_alarm=float(seconds @ np.maximum(guess - truth, 0)),
        confusion=float(seconds @ (np.minimum(truth, guess) - correct)),
    )


def _activity(turns: Sequence[Turn], times: np.ndarray) -> np.ndarray:
    """Who speaks between a time and the next: `[times - 1, speakers]` bool."""
    speakers = {speaker: column for column, speaker in enumerate(dict.fromkeys(speaker for *_, speaker in turns))}
    active = np.zeros((max(len(times) - 1, 0), len(speakers)), dtype=bool)
    for start, end, speaker in turns:
        active[np.searchsorted(times, start) : np.searchsorted(times, end), speakers[speaker]] = True
    return active


def turns_of(probabilities: np.ndarray, threshold: float, median: int, frame_seconds: float) -> list[Turn]:
    """The turns that s3prl's diarization/make_rttm.py writes.

    Args:
        probabilities: `[frames, speakers]`; above the threshold is speech.
        median: length of the median filter over time, in frames, odd; 1 for none.
        frame_seconds: from one frame to the next.

    Returns:
        Start and duration are rounded to hundredths of a second, for an RTTM holds no more.
    """
    from scipy.signal import medfilt

    active = (probabilities > threshold).astype(np.int64)
    if median > 1:
        active = medfilt(active, (median, 1))
    turns = []
    for speaker, frames in enumerate(active.T):
        changes = np.flatnonzero(np.diff(np.pad(frames, 1)))
        for start, end in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
            begin, length = float(f"{start * frame_seconds:.2f}"), float(f"{(end - start) * frame_seconds:.2f}")
            if length > 0:
                turns.append((begin, begin + length, str(speaker)))
    return turns


def best_errors(
    references: Mapping[str, Sequence[Turn]], probabilities: Mapping[str, np.ndarray], frame_seconds: float
) -> tuple[dict[str, Errors], float, int]:
    """Score a test set under each threshold and median filter, take the lowest error rate.

    Args:
        references: recording -> turns; these are scored.
        probabilities: recording -> `[frames, speakers]`; a recording without any is missed as a whole.

    Returns:
        Errors of each recording, and the threshold and median filter that they are of.

    Raises:
        SpeechFTError: the references hold no speech.
    """
    best: tuple[float, dict[str, Errors], float, int] | None = None
    for median in MEDIANS:
        for threshold in THRESHOLDS:
            found = {name: turns_of(one, threshold, median, frame_seconds) for name, one in probabilities.items()}
            errors = {name: diarization_errors(turns, found.get(name, ())) for name, turns in references.items()}
            rate = error_rate(errors)
            if best is None or rate < best[0]:
                best = (rate, errors, threshold, median)
    assert best is not None
    return best[1:]


def error_rate(errors: Mapping[str, Errors]) -> float:
    """Errors of all recordings over the speech of all recordings, a fraction.

    Raises:
        SpeechFTError: there is no speech.
    """
    scored = sum(one.scored for one in errors.values())
    if scored == 0:
        raise SpeechFTError("the reference turns hold no speech", "check rttm and segments of the test set")
    return sum(one.total for one in errors.values()) / scored


def read_rttm(path: Path) -> dict[str, list[Turn]]:
    """Recording -> turns, from lines `SPEAKER RECORDING CHANNEL START DURATION <NA> <NA> NAME ...`.

    Raises:
        SpeechFTError: a line that is none.
    """
    turns: dict[str, list[Turn]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, length = float(fields[3]), float(fields[4])
            turns.setdefault(fields[1], []).append((start, start + length, fields[7]))
        except (IndexError, ValueError) as error:
            raise SpeechFTError(f"line {number} of {path} is no RTTM line", "write it again") from error
    return turns
