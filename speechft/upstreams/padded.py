"""What padding does to the waveforms of a batch: nothing, or what it does in s3prl and in transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechft.upstreams.base import pad_waveforms

PADDINGS = ("own", "s3prl", "huggingface", "huggingface-unmasked")
"""How padded batches are computed.

- `own`: each waveform as if it were alone.
- The others let a waveform's features depend on what else is in the batch, since the group norm of base models averages
  over padding too. `s3prl` also rounds the attention mask of HuBERT, WavLM and UniSpeech-SAT to a frame more or less;
  published SUPERB numbers have that. `huggingface` is what transformers computes with an attention mask,
  `huggingface-unmasked` without: then padding is attended to, and counts where waveforms are normalised.
"""


def stacked(waveforms: Sequence[Tensor], minimum: int, normalize: bool, padding: str) -> tuple[Tensor, Tensor]:
    """As `pad_waveforms`, but normalised as transformers' `Wav2Vec2FeatureExtractor` does where that is followed.

    It adds 1e-7 to the variance (fairseq's layer norm 1e-5), and without a mask padding counts.
    """
    if not normalize or not padding.startswith("huggingface"):
        return pad_waveforms(waveforms, minimum, normalize)
    waves, lengths = pad_waveforms(waveforms, minimum, False)
    counts = torch.full_like(lengths, waves.shape[1]) if padding == "huggingface-unmasked" else lengths
    rows = [nn.functional.layer_norm(row[:count], (count,), eps=1e-7)
            for row, count in zip(waves, counts.tolist(), strict=True)]  # fmt: skip
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def attended(lengths: Tensor, frames: Tensor, padded: int, padding: str, family: str) -> Tensor:
    """How many frames of each waveform are attended to.

    In s3prl wav2vec 2.0 and data2vec follow the convolutions; HuBERT, WavLM and UniSpeech-SAT divide the padded length
    by the number of frames and keep every frame whose share of samples is not all padding (`forward_padding_mask` in
    their model files).

    Args:
        lengths: `[batch]` samples.
        frames: `[batch]` frames by the convolutions.
        padded: frames of the batch.
        padding: one of `PADDINGS`.
        family: of the upstream.

    Returns:
        `[batch]` int64.
    """
    if padding == "huggingface-unmasked":
        return torch.full_like(frames, padded)
    if padding != "s3prl" or family in ("wav2vec2", "data2vec-audio"):
        return frames
    share = int(lengths.max()) // padded
    return torch.div(lengths + share - 1, share, rounding_mode="floor").clamp(max=padded)


def masked_group_norm(hidden: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm over each item's first `valid` positions: `[batch, channels, time]`, `[batch]` -> the same shape.

    Item by item: torch's kernel passes over the memory twice, a masked formula written out nine times.
    """
    counts, length = valid.tolist(), hidden.shape[-1]
    if min(counts) >= length:
        return norm(hidden)
    rows = (norm(row[None, :, :count]) for row, count in zip(hidden, counts, strict=True))
    return torch.cat([nn.functional.pad(row, (0, length - row.shape[-1])) for row in rows]).to(hidden.dtype)
