"""SpecAugment as s3prl's `SpecAug` does it, on frames that lie behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speechft.superb.tasks.losses import padded


def augmented(specaug: Any, frames: Tensor, counts: Sequence[int]) -> Tensor:
    """What `SpecAug.forward` makes of a batch (s3prl/downstream/specaug.py): the same random numbers, results and
    gradients.

    s3prl's own writes utterance by utterance into a tensor of the whole batch and reads it out again likewise, and the
    gradient of each of these writes and reads is a tensor as large as the batch: a step of ASR spends most of its time
    filling them with zeros.

    Args:
        specaug: s3prl's module, whose warping and masks are used.
        frames: `[frames of all utterances, dim]`, which wants a gradient.
        counts: frames of each utterance.

    Returns:
        a tensor of the same shape.
    """
    rows = list(frames.split(list(counts)))
    lengths = torch.tensor(list(counts))
    if specaug.time_warp is not None:
        rows = [specaug.time_warp.time_warp(row[None])[0] for row in rows]
    whole = padded(rows)
    for mask in (specaug.freq_mask, specaug.time_mask):
        if mask is not None:
            whole, _ = mask(whole, lengths)
    return torch.cat([row[:count] for row, count in zip(whole.unbind(), counts, strict=True)])
