"""The CNN over the waveform as matrix products, for a CPU's bfloat16.

oneDNN's convolutions lose there what half precision gains: 3.10 (torch 2.11) takes seven times as long as in float32
for the first layer, whose input has one channel, and lays the input of each other one out anew. As products of windows
with a matrix, channels last, HuBERT base's CNN takes a third of that time (`scripts/bench forward --precision bf16`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_BLOCK = 4096
"""Windows of the first layer at a time: their 8 MB of float32 stay in the processor's cache up to the activation."""


def serves(hidden: Tensor) -> bool:
    """Whether `convolve` is meant for this call: bfloat16 on a CPU, and no gradient wanted."""
    return (
        hidden.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.is_grad_enabled()
    )


def convolve(layers: Iterable[Any], waves: Tensor, lengths: Tensor, own_norm: bool) -> Tensor:
    """`[batch, samples]` -> `[batch, channels, frames]`, as `convolutions.convolve` but for rounding.

    Args:
        layers: transformers' `conv_layers`.
        waves: padded with zeros.
        lengths: `[batch]` int64, in samples.
        own_norm: whether a group norm averages over each waveform's own positions; else over all.
    """
    first, *rest = layers
    with torch.autocast("cpu", enabled=False):
        hidden = _first(first, waves, lengths if own_norm else torch.full_like(lengths, waves.shape[1]))
        for layer in rest:
            hidden, norm = _products(layer.conv, hidden), getattr(layer, "layer_norm", None)
            hidden = activated_in_place(layer, hidden if norm is None else norm(hidden))
    return hidden.transpose(1, 2)


def _first(layer: Any, waves: Tensor, lengths: Tensor) -> Tensor:
    """`[batch, samples]` float32 -> `[batch, time, channels]` bfloat16: in float32 up to the activation, since what is
    rounded here is off in all layers. A group norm, of one channel each, becomes part of the filters."""
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    times = (waves.shape[1] - kernel) // stride + 1
    counts = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
    hidden = torch.empty(len(waves), times, conv.out_channels, dtype=torch.bfloat16)
    for row, wave, own in zip(hidden, waves, counts.tolist(), strict=True):
        windows, filters = wave.float().unfold(0, kernel, stride), conv.weight[:, 0].T
        if isinstance(norm, nn.GroupNorm):
            windows, filters, shift = normalised(windows[:own], filters, norm)
        else:
            shift = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        # one more column of ones takes what is added
        matrix = torch.cat([filters, shift[None]])
        for block, place in zip(windows.split(_BLOCK), row[: len(windows)].split(_BLOCK), strict=True):
            filtered = nn.functional.pad(block, (0, 1), value=1.0) @ matrix
            if norm is not None and not isinstance(norm, nn.GroupNorm):
                filtered = norm(filtered)
            place.copy_(activated_in_place(layer, filtered))
        row[len(windows) :] = 0
    return hidden


def normalised(windows: Tensor, filters: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor, Tensor]:
    """What a group norm of one channel each makes of a filter's output, as filters of windows without their mean: mean
    and variance of the output follow from those of the windows.

    Args:
        windows: `[time, kernel]`.
        filters: `[kernel, channels]`.

    Returns:
        windows, filters, and what is added to their product, `[channels]`.
    """
    moved = windows - windows.mean(0)
    wide = moved.double()
    variance = ((wide.T @ wide / len(wide) @ filters.double()) * filters).sum(0)
    return moved, filters * norm.weight / (variance + norm.eps).sqrt().float(), norm.bias


def _products(conv: nn.Conv1d, hidden: Tensor) -> Tensor:
    """`[batch, time, channels]` bfloat16 -> the same of the convolution's output.

    A window that overlaps the next is taken a stride at a time: torch would copy overlapping ones before it multiplies.
    """
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    batch, time, channels = hidden.shape
    count = (time - kernel) // stride + 1
    matrix = conv.weight.bfloat16().permute(0, 2, 1).reshape(conv.out_channels, kernel * channels).T
    shift = None if conv.bias is None else conv.bias.bfloat16()
    output = torch.empty(batch, count, conv.out_channels, dtype=torch.bfloat16)
    for row, item in zip(output, hidden, strict=True):
        added = shift
        for tap in range(0, kernel, stride):
            width = min(stride, kernel - tap) * channels
            windows = item[tap:].as_strided((count, width), (stride * channels, 1))
            rows = matrix[tap * channels : tap * channels + width]
            if added is None:
                torch.mm(windows, rows, out=row)
            else:
                torch.addmm(added, windows, rows, out=row)
            added = row
    return output


def activated_in_place(layer: Any, hidden: Tensor) -> Tensor:
    """A layer's activation, in place where it is the exact GELU; not for tensors that want a gradient."""
    from transformers.activations import GELUActivation

    exact = isinstance(layer.activation, GELUActivation) and layer.activation.act is nn.functional.gelu
    return torch.ops.aten.gelu_(hidden) if exact else layer.activation(hidden)
