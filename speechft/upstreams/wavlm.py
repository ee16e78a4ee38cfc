"""WavLM's attention with its projections called as modules, by torch's fast kernels.

transformers hands the projections' weights to one function, so whatever is put around a projection, an adapter for
instance, would never be heard; and it computes the attention's weights, which nobody asks for, so that no fast kernel
is used (a fifth of the time of base on a CPU). Here the same attention is computed from the modules' outputs.
"""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from speechft.upstreams.dropout import dropped_attention


def call_projections(model: nn.Module) -> None:
    """Have every attention of WavLM in a model computed in this form; other families already are."""
    for module in model.modules():
        if hasattr(module, "torch_multi_head_self_attention"):
            module.torch_multi_head_self_attention = types.MethodType(_attend, module)  # type: ignore[assignment]


def _attend(self: Any, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor) -> Any:
    """`[batch, frames, dim]`, a mask `[batch, frames]`, and a bias `[batch * heads, frames, frames]` that is added to
    the scores -> `[batch, frames, dim]`, and None for the attention's weights."""
    batch, length, _ = hidden_states.shape
    query, key, value = (
        project(hidden_states).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    bias = gated_position_bias.view(batch, self.num_heads, length, length).to(query.dtype)
    if attention_mask is not None:
        bias = bias.masked_fill(attention_mask.ne(1)[:, None, None, :], float("-inf"))
    if self.training and self.dropout and query.device.type == "cpu":
        mixed = dropped_attention(query, key, value, bias, self.dropout)
    else:
        rate = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)
    return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, -1)), None
