"""SoX's effect `silence` on one channel, to the bit: which samples of a waveform it keeps.

The definition (sox(1), and src/silence.c of SoX 14.4.2 for what the manual leaves open):

- A sample is loud if the RMS of the last 20 ms up to it is above the threshold; what lies before the file, or before a
  restart, counts as zeros. SoX holds samples as 32-bit integers and cuts the RMS to one.
- The beginning is dropped until `above_periods` runs of loud samples have each lasted `duration`; the last run is kept.
- From there on everything is kept but a run of quiet samples that lasts `duration`. With a negative `below_periods` the
  search for a beginning then starts again behind it, with an empty RMS window; with a positive one everything ends at
  the last of so many runs, those before it being kept.
- A shorter quiet run at the end of the file is kept; a shorter loud run after a restart is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechft.errors import SpeechFTError

_FULL_SCALE = 2**31  # SoX's samples: 32-bit integers
_FIRST_LOOK = 4  # seconds after a restart whose RMS is computed at first; doubled while nothing is found in them


@dataclass(frozen=True)
class _Side:
    """`above_periods duration threshold` or `below_periods duration threshold`.

    Attributes:
        periods: how many runs.
        samples: length of a run.
        threshold: in SoX's integers; what is loud is above it.
    """

    periods: int
    samples: int
    threshold: float


def silence(wave: Tensor, rate: int, arguments: Sequence[str]) -> tuple[Tensor, int]:
    """Apply the effect.

    Args:
        wave: `[1, samples]` float in [-1, 1], as after the effect `gain` (of a 16-bit file without an effect before
            this one, SoX would compare the upper 16 bits only).
        rate: Hz.
        arguments: `above_periods [duration threshold] [below_periods duration threshold]`; durations in seconds if
            they hold a point, else in samples; thresholds in per cent of full scale, or in dB with a `d` at the end.

    Returns:
        `[1, samples kept]`, and the rate.

    Raises:
        SpeechFTError: more than one channel, `-l`, or arguments that SoX would refuse.
    """
    if wave.shape[0] != 1:
        raise SpeechFTError(f"sox effect 'silence' on {wave.shape[0]} channels is not supported", "mix down to one")
    start, stop, restart = _parse(arguments, rate)
    integers = np.rint(wave[0].double().numpy() * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1)
    pieces = _pieces(integers, rate // 50, int(rate * _FIRST_LOOK), start, stop, restart)
    kept = [wave[:, begin:end] for begin, end in pieces if end > begin]
    return (torch.cat(kept, dim=1) if kept else wave[:, :0]), rate


def _parse(arguments: Sequence[str], rate: int) -> tuple[_Side | None, _Side | None, bool]:
    def wrong() -> SpeechFTError:
        return SpeechFTError(
            f"sox effect 'silence {' '.join(arguments)}' is not supported",
            "give above_periods [duration threshold] [below_periods duration threshold]",
        )

    rest = list(arguments)
    try:
        above = int(rest.pop(0))
        start = _Side(above, _duration(rest.pop(0), rate), _threshold(rest.pop(0))) if above > 0 else None
        below = int(rest.pop(0)) if rest else None
        stop = None if below is None else _Side(abs(below), _duration(rest.pop(0), rate), _threshold(rest.pop(0)))
    except (ValueError, IndexError) as error:
        raise wrong() from error
    if above < 0 or rest:
        raise wrong()
    return start, stop, below is not None and below < 0


def _duration(text: str, rate: int) -> int:
    return int(float(text) * rate + 0.5) if "." in text else int(text)


def _threshold(text: str) -> float:
    if text.endswith("d"):
        return 10.0 ** (float(text[:-1]) / 20.0) * (_FULL_SCALE - 1)
    return float(text.removesuffix("%")) / 100.0 * (_FULL_SCALE - 1)


def _level(integers: np.ndarray, window: int) -> np.ndarray:
    """RMS of the last `window` samples up to each one, in whole numbers; what is before the first counts as zero.

    SoX adds each new square to a running sum and takes the oldest away, in this order and in double precision; a
    cumulative sum over both in turn rounds as it does.
    """
    squares = integers * integers
    changes = np.zeros(2 * len(squares))
    changes[2 * window :: 2] = -squares[:-window]
    changes[1::2] = squares
    sums = np.cumsum(changes)[1::2]
    return np.floor(np.sqrt(np.maximum(sums, 0.0) / window))  # rounding may leave less than nothing


def _pieces(
    integers: np.ndarray, window: int, look: int, start: _Side | None, stop: _Side | None, restart: bool
) -> list[tuple[int, int]]:
    """Begin and end of what is kept, in order."""
    pieces: list[tuple[int, int]] = []
    origin = 0
    while origin < len(integers):
        size, after = look, None
        while after is None:  # neither a beginning nor an end is certain before the quiet run has been found
            begin, end, after = _stretch(_level(integers[origin : origin + size], window), start, stop)
            if origin + size >= len(integers):
                break
            size *= 2
        if begin is not None:
            pieces.append((origin + begin, origin + end))
        if after is None or not restart:
            break
        origin += after
        start = start or _Side(1, 1, 0.0)  # SoX looks for a beginning now, even where there was none to look for
    return pieces


def _stretch(level: np.ndarray, start: _Side | None, stop: _Side | None) -> tuple[int | None, int, int | None]:
    """What is kept of the samples after a restart: its begin (None: nothing) and end, and where the quiet run behind it
    is over (None: there is none)."""
    begun = (0, 0) if start is None else _nth_run(level > start.threshold, 0, start)
    if begun is None:
        return None, 0, None
    ended = None if stop is None else _nth_run(level <= stop.threshold, begun[1], stop)
    return (begun[0], len(level), None) if ended is None else (begun[0], *ended)


def _nth_run(flags: np.ndarray, origin: int, side: _Side) -> tuple[int, int] | None:
    """Begin and end of the last of `side.periods` runs of `side.samples` set flags, counted from `origin` on.

    A run that goes on is counted again after each `side.samples`.
    """
    needed = max(side.samples, 1)  # SoX looks at a run's length after it has added a sample
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags[origin:], [False]]).astype(np.int8)))
    wanted = max(side.periods, 1)
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        here = (last - first) // needed
        if here >= wanted:
            begin = origin + first + (wanted - 1) * needed
            return begin, begin + needed
        wanted -= here
    return None
