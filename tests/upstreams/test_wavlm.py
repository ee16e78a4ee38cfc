"""WavLM's attention through its modules: transformers' own computation is the reference."""

from __future__ import annotations

import copy

import torch
from small import save_upstream
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from speechft.upstreams.load import load_upstream

WAVES = [torch.randn(4000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)] + [torch.ones(2500)]


def test_wavlms_attention_is_the_same_through_its_modules(tmp_path):
    ours = load_upstream(save_upstream(tmp_path / "wavlm", "wavlm"))
    theirs = copy.deepcopy(ours)
    replaced = [module for module in theirs.modules() if isinstance(module, WavLMAttention)]
    assert replaced
    for module in replaced:
        del module.torch_multi_head_self_attention
    for state, other in zip(ours(WAVES).states, theirs(WAVES).states, strict=True):
        assert torch.allclose(state, other, atol=1e-5)
    for upstream in (ours, theirs):
        upstream(WAVES).last.square().sum().backward()
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if other.grad is not None:
            assert torch.allclose(parameter.grad, other.grad, rtol=1e-3, atol=1e-3), name


def test_a_copy_attends_with_its_own_weights(tmp_path):
    upstream = load_upstream(save_upstream(tmp_path / "wavlm", "wavlm"))
    other = copy.deepcopy(upstream)
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.zero_()
    assert other(WAVES).last.abs().sum() > 0 and not torch.equal(upstream(WAVES).last, other(WAVES).last)
