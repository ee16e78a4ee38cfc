"""SpecAugment (1904.08779) on features instead of spectra, as SUPERB's ASR has it (s3prl/downstream/specaug.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speechft.console import say_once
from speechft.errors import UsageError

_NEEDED = ("time_masks", "time_width", "dim_masks", "dim_width")
_KNOWN = (*_NEEDED, "time_warp")
_USUAL_DIM = 768
"""Of the base models, which SUPERB's and the paper's widths are for."""
_MUCH = 0.25
"""Mean share of masked dimensions from which it is worth a word; the paper's is 13 % at 768."""


def check_options(options: Mapping[str, Any]) -> dict[str, int]:
    """What `augmented` takes, as whole numbers.

    Raises:
        UsageError: one is missing, unknown, or no whole number of at least 0.
    """
    wrong = sorted(options.keys() - set(_KNOWN)) + [key for key in _NEEDED if key not in options]
    wrong += [key for key, value in options.items() if type(value) is not int or value < 0]
    if wrong:
        raise UsageError(
            f"task.specaugment: {wrong[0]} is missing, unknown or no whole number",
            f"give {', '.join(_NEEDED)} and perhaps time_warp, or null for none",
        )
    return dict(options)


def tell_if_narrow(options: Mapping[str, int], dim: int) -> None:
    """Say so where masks whose widths are for other upstreams take a good part of the dimensions away.

    Args:
        options: what `check_options` returns.
        dim: of the hidden states.
    """
    # each width is drawn from 0 to dim_width; that masks overlap is left out
    mean = options["dim_masks"] * options["dim_width"] / 2 / dim
    if mean > _MUCH:
        advice = max(int(options["dim_width"] * dim / _USUAL_DIM), 1)
        say_once(
            f"SpecAugment masks up to {min(options['dim_masks'] * options['dim_width'], dim)} of this upstream's {dim} "
            f"dimensions, as its widths are for {_USUAL_DIM}: task.specaugment.dim_width={advice} masks the same share"
        )


def augmented(
    states: Tensor, frames: Tensor, time_masks: int, time_width: int, dim_masks: int, dim_width: int, time_warp: int = 0
) -> Tensor:
    """Warp time, then mask dimensions and frames.

    Args:
        states: `[batch, frames, dim]`.
        frames: `[batch]` valid frames.
        time_masks, time_width, dim_masks, dim_width: see `mask_features`.
        time_warp: see `warp_time`; 0 for none.
    """
    if time_warp:
        states = warp_time(states, frames, time_warp)
    return mask_features(states, frames, time_masks, time_width, dim_masks, dim_width)


def warp_time(states: Tensor, frames: Tensor, window: int) -> Tensor:
    """Move a random moment of each utterance by up to `window` frames; before and after it time is stretched evenly
    (bicubic interpolation). Utterances of at most twice the window stay.

    Args:
        states: `[batch, frames, dim]`.
        frames: `[batch]` valid frames; what is behind them is not looked at, and becomes 0.
        window: in frames.
    """
    rows = []
    for row, count in zip(states, frames.tolist(), strict=True):
        own = row[:count]
        if count > 2 * window:
            moment = int(torch.randint(window, count - window, ()))
            moved = int(torch.randint(moment - window, moment + window, ())) + 1
            own = torch.cat([_stretched(own[:moment], moved), _stretched(own[moment:], count - moved)])
        rows.append(functional.pad(own, (0, 0, 0, states.shape[1] - count)))
    return torch.stack(rows)


def _stretched(part: Tensor, count: int) -> Tensor:
    """`[frames, dim]` -> `[count, dim]`."""
    image = part[None, None].float()  # as one channel, whose columns keep their number
    stretched = functional.interpolate(image, (count, part.shape[1]), mode="bicubic", align_corners=False)
    return stretched[0, 0].to(part.dtype)


def mask_features(
    states: Tensor, frames: Tensor, time_masks: int, time_width: int, dim_masks: int, dim_width: int
) -> Tensor:
    """Random spans of frames and of dimensions set to zero.

    Args:
        states: `[batch, frames, dim]`.
        frames: `[batch]` valid frames; spans start inside them.
        time_masks, time_width: how many spans of 0 to `time_width` frames.
        dim_masks, dim_width: how many spans of 0 to `dim_width` dimensions.
    """
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
