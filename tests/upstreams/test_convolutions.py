"""Convolutions that a CPU's half precision gets wrong: the same call in float32 is the reference."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from speechft.upstreams.convolutions import keep_narrow_exact

WRONG = [(16, 4, 16, 1, 49), (32, 4, 128, 1, 300), (192, 16, 64, 1, 49), (16, 1, 8, 8, 40), (16, 1, 4, 4, 68)]
"""Channels, groups, kernel, stride and length that oneDNN 3.10 answers with noise in bfloat16 where there is AMX."""


def convolution(channels: int, groups: int, kernel: int, stride: int) -> nn.Conv1d:
    torch.manual_seed(0)
    conv = nn.Conv1d(channels, channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
    return nn.utils.parametrizations.weight_norm(conv, dim=2) if stride == 1 else conv


@pytest.mark.parametrize("shape", WRONG, ids=str)
@pytest.mark.parametrize("gradients", [True, False])
def test_narrow_ones_are_right_in_half_precision(shape, gradients):
    conv, hidden = convolution(*shape[:4]), torch.randn(2, shape[0], shape[4])
    expected = conv(hidden)
    keep_narrow_exact(conv)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        for one in (conv, copy.deepcopy(conv)):
            assert torch.equal(one(hidden), expected)
            assert torch.allclose(one(hidden.bfloat16()), expected, atol=0.05)
    assert torch.equal(conv(hidden), expected)
    assert not any("_conv_forward" in name for name in conv.state_dict())


def test_a_copy_computes_with_its_own_weights():
    conv = convolution(16, 4, 16, 1)
    keep_narrow_exact(conv)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.bias.add_(1)
    hidden = torch.randn(1, 16, 49)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(other(hidden), conv(hidden) + 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 2, 16, 1), (32, 1, 3, 2)], ids=str)
def test_wide_ones_stay_in_half_precision(shape):
    conv, hidden = convolution(*shape), torch.randn(2, shape[0], 49)
    keep_narrow_exact(conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(hidden).dtype == torch.bfloat16


def test_the_waveform_s_own_channel_stays_in_half_precision():
    conv = nn.Conv1d(1, 8, 10, 5)
    keep_narrow_exact(conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(1, 1, 400)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "shape", [(1, 512, 1, 10, 5), (512, 512, 1, 3, 2), (512, 512, 1, 2, 2), (768, 768, 16, 128, 1)], ids=str
)
@pytest.mark.parametrize("length", [130, 512])
def test_those_of_published_models_are_right_as_they_are(shape, length):
    """Guards the belief under `NARROW` on the CPU at hand."""
    before, after, groups, kernel, stride = shape
    torch.manual_seed(0)
    conv, hidden = nn.Conv1d(before, after, kernel, stride, groups=groups), torch.randn(2, before, length)
    with torch.inference_mode():
        exact = conv(hidden)
        with torch.autocast("cpu", torch.bfloat16):
            rough = conv(hidden)
    assert (rough.float() - exact).norm() < 0.01 * exact.norm()
