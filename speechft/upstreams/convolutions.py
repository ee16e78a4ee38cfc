"""The arithmetic of the CNN over the waveform: transformers' layers, with a group norm that does not hear padding; and
what a CPU gets wrong in half precision."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from speechft.upstreams import products


def convolve(layers: Iterable[Any], waves: Tensor, lengths: Tensor, group_norm: tuple[int, int] | None) -> Tensor:
    """`[batch, samples]` -> `[batch, channels, frames]`.

    Where no gradient is wanted (a frozen CNN), activations and the group norm are computed in place: the first layers'
    outputs are by far the widest tensors of a model, and a copy of each costs a CPU more than the arithmetic. The
    numbers are the same.

    Args:
        layers: transformers' `conv_layers`.
        waves: padded with zeros.
        lengths: `[batch]` int64, in samples.
        group_norm: kernel and stride of the first layer, if its group norm is to average over each waveform's own
            positions; None leaves all to the layers.
    """
    if products.serves(waves):
        return products.convolve(layers, waves, lengths, group_norm is not None)
    hidden = waves[:, None]
    for index, layer in enumerate(layers):
        if index == 0 and group_norm is not None:
            kernel, stride = group_norm
            valid = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
            hidden = _activated(layer, masked_group_norm(layer.conv(hidden), valid, layer.layer_norm))
        elif hasattr(layer, "layer_norm"):
            hidden = layer(hidden)
        else:
            hidden = _activated(layer, layer.conv(hidden))
    return hidden


def masked_group_norm(hidden: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm over each item's first `valid` positions: `[batch, channels, time]`, `[batch]` -> the same shape, with
    zeros behind them. Without gradients `hidden` itself is changed.

    Item by item: torch's kernel passes over the memory twice, a masked formula written out nine times.
    """
    counts, length = valid.tolist(), hidden.shape[-1]
    if min(counts) >= length:
        return norm(hidden)
    if not torch.is_grad_enabled():
        for row, count in zip(hidden, counts, strict=True):
            row[:, :count] = norm(row[None, :, :count])[0]
            row[:, count:] = 0
        return hidden
    rows = (norm(row[None, :, :count]) for row, count in zip(hidden, counts, strict=True))
    return torch.cat([nn.functional.pad(row, (0, length - row.shape[-1])) for row in rows]).to(hidden.dtype)


NARROW = 16
"""Up to so many channels of a group, half-precision convolutions are not trusted to a CPU."""


def keep_narrow_exact(module: nn.Module) -> None:
    """Let the narrow 1-d convolutions inside a module compute in float32 under a CPU's autocast.

    On CPUs with AMX, oneDNN 3.10 (torch 2.11) answers noise as large as the signal, without an error, for some of them:
    groups of 2, 4, 8 or 12 channels with kernels of 16 or longer (the positions of a small model), and 16 channels
    where the stride is the kernel and divides the length (`tests/upstreams/test_convolutions.py` has the cases). The
    convolutions of published models are wider, or have the one channel of the waveform; those stay as they are.
    """
    for one in module.modules():
        if isinstance(one, nn.Conv1d) and 1 < one.in_channels // one.groups <= NARROW:
            one._conv_forward = partial(_exact, one)  # type: ignore[method-assign]


def _exact(conv: nn.Conv1d, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if hidden.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return nn.Conv1d._conv_forward(conv, hidden, weight, bias)
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        return nn.Conv1d._conv_forward(conv, hidden.float(), weight.float(), bias)


def _activated(layer: Any, hidden: Tensor) -> Tensor:
    return layer.activation(hidden) if torch.is_grad_enabled() else products.activated_in_place(layer, hidden)
