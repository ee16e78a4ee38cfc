"""Long recordings in bounded memory: overlapping pieces, one at a time, for every family alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import Checkpoint
from speechft.errors import UsageError
from speechft.upstreams.base import Hidden, Upstream, scaled

OVERLAP = 4.0
"""Seconds that neighbouring pieces share unless told otherwise."""
_RATE = 16_000


@dataclass(frozen=True)
class Piece:
    """A part of a waveform.

    Attributes:
        start, stop: its samples.
        offset: the whole's number of its first frame.
        first, last: the frames of the whole that are taken from it, `last` not included.
    """

    start: int
    stop: int
    offset: int
    first: int
    last: int


class Chunked(Upstream):
    """An upstream that hears recordings longer than `seconds` in pieces of that length.

    Pieces overlap, and each frame is taken from the piece where its nearer edge is farthest away (an edge of the
    recording is none). What is shorter than a piece passes unchanged. The inner upstream gets at most one piece of each
    waveform at a time, so a batch costs no more than as many waveforms of `seconds`; only the states themselves grow
    with the recording.

    Input normalisation is over the whole recording. What a family computes over its whole input is computed over a
    piece: attention, the group norm of base models, DeCoAR 2.0's and `mean_norm`'s means, Whisper's positions (which
    restart every 30 s anyway). So features change a little, and the lengths belong to the identity.

    Args:
        inner: any upstream; it must not be used on its own any more.
        seconds: the longest piece.
        overlap: seconds that neighbouring pieces share.

    Raises:
        UsageError: lengths that leave nothing to go forward by.
    """

    def __init__(self, inner: Upstream, seconds: float, overlap: float) -> None:
        super().__init__()
        self.inner = inner
        self.identity = replace(inner.identity, chunk_seconds=seconds, chunk_overlap=overlap)
        inner.identity = replace(inner.identity, normalize=False)  # the whole recording is scaled here
        self.dim, self.num_layers, self.hop = inner.dim, inner.num_layers, inner.hop
        self.trainable, self.first_centre = inner.trainable, inner.first_centre
        step = 0
        if math.isfinite(seconds) and math.isfinite(overlap) and seconds > 0 and overlap >= 0:
            self._samples = round(seconds * _RATE) // self.grid * self.grid
            self._usable = self._frames(self._samples) * self.hop // self.grid * self.grid
            step = min((self._samples - round(overlap * _RATE)) // self.grid * self.grid, self._usable)
        if step <= 0:
            raise UsageError(
                f"chunk_seconds={seconds:g} with chunk_overlap={overlap:g} leaves nothing to go forward by",
                "give positive lengths, the overlap well below the chunk: 30 and 4, for instance",
            )
        self._step = step

    @property
    def grid(self) -> int:
        return self.inner.grid

    @property
    def layers(self) -> Sequence[nn.Module]:
        return self.inner.layers

    def _frames(self, samples: int) -> int:
        return int(self.inner.frame_counts(torch.tensor([samples]))[0])

    def pieces(self, samples: int) -> list[Piece]:
        """How a waveform of so many samples is cut; its frames are the whole's, each in one piece.

        Pieces begin at multiples of `grid`, so that a frame hears the same samples in a piece as in the whole. The last
        one is moved back to full length, for the context at its left.
        """
        if samples <= self._samples:
            return [Piece(0, samples, 0, 0, self._frames(samples))]
        final = -(-(samples - self._samples) // self.grid) * self.grid
        starts = [*range(0, final, self._step), final]
        firsts = [0]
        for before, start in pairwise(starts):
            end = (before + self._usable) // self.hop
            firsts.append((end + start // self.hop + 1) // 2)
        lasts = [*firsts[1:], self._frames(samples)]
        return [
            Piece(start, min(start + self._samples, samples), start // self.hop, first, last)
            for start, first, last in zip(starts, firsts, lasts, strict=True)
        ]

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        waves = [scaled(wave) for wave in waveforms] if self.identity.normalize else list(waveforms)
        cuts = [self.pieces(wave.numel()) for wave in waves]
        turns = max(map(len, cuts))
        if turns == 1:
            return self.inner(waves, last_only)
        frames = self.frame_counts(torch.tensor([wave.numel() for wave in waves], device=waves[0].device))
        states: list[Tensor] = []
        for turn in range(turns):
            rows = [row for row, own in enumerate(cuts) if turn < len(own)]
            now = [cuts[row][turn] for row in rows]
            parts = self.inner(
                [waves[row][piece.start : piece.stop] for row, piece in zip(rows, now, strict=True)], last_only
            ).states
            if not states:
                states = [part.new_zeros(len(waves), int(frames.max()), part.shape[2]) for part in parts]
            for whole, part in zip(states, parts, strict=True):
                for place, (row, piece) in enumerate(zip(rows, now, strict=True)):
                    own = part[place, piece.first - piece.offset : piece.last - piece.offset]
                    whole[row, piece.first : piece.last] = own
        return Hidden(states, frames)

    def frame_counts(self, samples: Tensor) -> Tensor:
        return self.inner.frame_counts(samples)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return self.inner.parts()

    def checkpoint(self) -> Checkpoint:
        return self.inner.checkpoint()
