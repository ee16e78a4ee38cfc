"""Heads that read one hidden state: `[batch, frames, dim]` in, `[batch, frames, classes]` out (`[batch, classes]`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class LinearHead(nn.Module):
    """dim -> hidden -> classes, nothing between (the shape of SUPERB's PR head)."""

    def __init__(self, dim: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        del frames  # every frame stands for itself
        return self.output(self.project(states))


class MeanPoolingHead(nn.Module):
    """dim -> hidden, the mean over an utterance's own frames, -> classes: one answer for an utterance.

    SUPERB's head of SID, KS, IC and ER (s3prl/downstream/model.py, `UtteranceLevel` with `MeanPooling` after each
    expert's `projector`), and the paper's for ER.
    """

    def __init__(self, dim: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        return self.output(mean_over_frames(self.project(states), frames))


def mean_over_frames(states: Tensor, frames: Tensor) -> Tensor:
    """The mean of each item's first `frames`: `[batch, frames, dim]`, `[batch]` -> float32 `[batch, dim]`."""
    valid = torch.arange(states.shape[1], device=states.device) < frames[:, None]
    return (states * valid[:, :, None]).sum(1, dtype=torch.float32) / frames[:, None]


class BlstmHead(nn.Module):
    """dim -> hidden, `layers` bidirectional LSTMs with dropout after each, -> classes.

    The paper's ASR model (section IV); `RNNs` of s3prl/downstream/asr/model.py.
    """

    def __init__(self, dim: int, hidden: int, classes: int, layers: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)  # torch's own is between the layers, not after the last
        self.output = nn.Linear(2 * hidden, classes)

    def forward(self, states: Tensor, frames: Tensor) -> Tensor:
        # Packed, so that the backward direction starts at each utterance's own end and padding changes nothing.
        packed = pack_padded_sequence(self.project(states), frames.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=states.shape[1])
        return self.output(self.dropout(hidden))


def build_head(kind: str, dim: int, hidden: int, classes: int, dropout: float) -> nn.Module:
    """A head by name: `linear` or `blstm`."""
    if kind == "linear":
        return LinearHead(dim, hidden, classes)
    if kind == "blstm":
        return BlstmHead(dim, hidden, classes, dropout=dropout)
    from speechft.errors import UsageError

    raise UsageError(f"unknown head {kind!r}", "known: linear, blstm")


def mask_features(
    states: Tensor, frames: Tensor, time_masks: int, time_width: int, dim_masks: int, dim_width: int, time_warp: int = 0
) -> Tensor:
    """SpecAugment on features (1904.08779): time warped, then random spans of frames and of dimensions set to zero.

    Args:
        states: `[batch, frames, dim]`.
        frames: `[batch]` valid frames; spans start inside them.
        time_masks, time_width: how many spans of 0 to `time_width` frames.
        dim_masks, dim_width: how many spans of 0 to `dim_width` dimensions.
        time_warp: see `warp_time`; 0 for none.
    """
    if time_warp:
        states = warp_time(states, frames, time_warp)
    batch, length, dim = states.shape
    keep = torch.ones(batch, length, dim, dtype=torch.bool, device=states.device)
    for count, width, axis in ((time_masks, time_width, 1), (dim_masks, dim_width, 2)):
        size = frames if axis == 1 else torch.full_like(frames, dim)
        places = torch.arange(states.shape[axis], device=states.device)
        for _ in range(count):
            span = torch.randint(0, width + 1, (batch,), device=states.device).minimum(size)
            start = (torch.rand(batch, device=states.device) * (size - span + 1)).long()
            inside = (places >= start[:, None]) & (places < (start + span)[:, None])
            keep &= ~(inside[:, :, None] if axis == 1 else inside[:, None, :])
    return states * keep


def warp_time(states: Tensor, frames: Tensor, window: int) -> Tensor:
    """SpecAugment's time warp: a random frame of each item moves by up to `window` frames, and what is before and after
    it is stretched to fit (bicubic, as in s3prl/downstream/specaug.py). Items of at most two windows stay.

    Args:
        states: `[batch, frames, dim]`.
        frames: `[batch]` valid frames.
    """
    rows = []
    for row, count in zip(states, frames.tolist(), strict=True):
        if count > 2 * window:
            centre = int(torch.randint(window, count - window, ()))
            moved = int(torch.randint(centre - window, centre + window, ())) + 1
            parts = _stretched(row[:centre], moved), _stretched(row[centre:count], count - moved), row[count:]
            rows.append(torch.cat(parts))
        else:
            rows.append(row)
    return torch.stack(rows)


def _stretched(part: Tensor, length: int) -> Tensor:
    """`[frames, dim]` -> `[length, dim]`."""
    size = (length, part.shape[1])
    wide = nn.functional.interpolate(part[None, None].float(), size, mode="bicubic", align_corners=False)
    return wide[0, 0].to(part.dtype)
