"""Dropout (1207.0580) that costs a CPU little.

torch draws a CPU's dropout masks number by number on one core: a tenth of a training step of HuBERT base on two cores,
and more in half precision, where everything else is faster (`scripts/bench train`). Here four decisions are taken from
each random number of 64 bits, and all else runs on all cores. Same distribution; torch's own generator, so seeds and
exact resume hold; but other numbers than torch's for the same seed. Elsewhere than on a CPU torch's own is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION = "speechft"
"""The name by which transformers finds `attention`."""

_SHARES = 1 << 16


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, dropped: int) -> Tensor:
        count = hidden.numel()
        drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
        kept = torch.empty(hidden.shape, dtype=hidden.dtype)
        torch.ge(drawn.view(torch.int16)[:count].view(hidden.shape), dropped - _SHARES // 2, out=kept)
        ctx.save_for_backward(kept)
        ctx.scale = _SHARES / (_SHARES - dropped)
        return _scaled(hidden, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _scaled(gradients[0], kept, ctx.scale), None


def _scaled(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    return torch.addcmul(torch.zeros((), dtype=values.dtype), values, kept, value=scale)


def dropout(hidden: Tensor, rate: float, training: bool = True) -> Tensor:
    """`torch.nn.functional.dropout`, on a CPU with a rate that is a multiple of 1/65536 (0.1 is 0.100006).

    Args:
        hidden: any shape, a floating type.
        rate: the share set to zero; the rest is scaled so that the expectation stays.
        training: False returns `hidden`.

    Returns:
        a tensor like `hidden`.
    """
    dropped = round(rate * _SHARES)
    ours = training and hidden.device.type == "cpu" and 0 < dropped < _SHARES and not torch.compiler.is_compiling()
    if not ours:
        return functional.dropout(hidden, rate, training)
    result: Tensor = _Dropped.apply(hidden, dropped)  # type: ignore[no-untyped-call]
    return result


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


def cheapen(module: nn.Module) -> None:
    """Replace every `torch.nn.Dropout` inside a module; what is saved of it does not change."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """transformers' `sdpa`, but for a CPU that drops attention's weights, where torch's is written out just so.

    Args:
        module: the attention's, for transformers.
        query, key, value: `[batch, heads, frames, head_dim]`.
        attention_mask: broadcasts to `[batch, heads, frames, frames]`; False or a large negative number where nothing
            is attended to.
        dropout: rate.
        scaling: of the scores; None is 1 / sqrt(head_dim).
        others: for transformers.

    Returns:
        `[batch, frames, heads, head_dim]`, and None for the attention's weights.
    """
    special = others.get("position_bias") is not None or others.get("is_causal") or getattr(module, "is_causal", False)
    if not dropout or query.device.type != "cpu" or special:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    mixed = dropped_attention(query, key, value, attention_mask, dropout, scaling)
    return mixed.transpose(1, 2).contiguous(), None


def dropped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scaling: float | None = None
) -> Tensor:
    """`functional.scaled_dot_product_attention` with dropout: arguments and result as in `attention`, heads first."""
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return dropout(scores.softmax(-1), rate) @ value


def register() -> str:
    """Make `attention` known to transformers, with the masks of its `sdpa`; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION
