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
    """dim -> hidden, `layers` bidirectional LSTMs with dropout behind each, -> classes.

    The paper's ASR model (section IV; `RNNs` of s3prl/downstream/asr/model.py, where the last layer has dropout too).
    """

    def __init__(self, dim: int, hidden: int, classes: int, layers: int = 3, dropout: float = 0.2) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)  # LSTM has none behind its last layer
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
