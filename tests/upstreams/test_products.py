"""The CNN as matrix products: transformers' own layers in float32 are the reference."""

from __future__ import annotations

import pytest
import torch
from transformers import HubertConfig
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder

from speechft.upstreams import products
from speechft.upstreams.convolutions import convolve

SHAPES = {
    "hubert": ((512,) * 3, (10, 3, 2), (5, 2, 2)),
    "nano": ((48, 96, 128), (10, 8, 4), (5, 4, 4)),
}
LENGTHS = torch.tensor([4000, 3333, 401])


def layers(shape: str, norm: str, bias: bool, activation: str = "gelu") -> torch.nn.ModuleList:
    torch.manual_seed(0)
    channels, kernels, strides = SHAPES[shape]
    config = HubertConfig(
        conv_dim=channels, conv_kernel=kernels, conv_stride=strides, num_feat_extract_layers=3, feat_extract_norm=norm,
        conv_bias=bias, feat_extract_activation=activation,
    )  # fmt: skip
    found = HubertFeatureEncoder(config).conv_layers
    with torch.no_grad():
        for name, one in found.named_parameters():
            one.add_(torch.randn_like(one) * (0.3 if "norm" in name or "bias" in name else 0.02))
    return found.eval()


def heard(waves: torch.Tensor, own: torch.nn.ModuleList) -> torch.Tensor:
    hidden = waves[:, None]
    for layer in own:
        hidden = layer(hidden)
    return hidden


def waveforms() -> torch.Tensor:
    torch.manual_seed(1)
    waves = 0.1 * torch.randn(3, 4000) + 0.05
    for wave, length in zip(waves, LENGTHS.tolist(), strict=True):
        wave[length:] = 0
    return waves


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "bias", "activation"), [
    ("group", False, "gelu"), ("group", True, "gelu"), ("layer", True, "gelu"), ("layer", False, "relu"),
])  # fmt: skip
def test_it_is_transformers_cnn_with_rounding(shape, norm, bias, activation, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 300)  # of the 799 windows of the first layer
    own, waves = layers(shape, norm, bias, activation), waveforms()
    kernel = (SHAPES[shape][1][0], SHAPES[shape][2][0])
    with torch.no_grad():
        whole = heard(waves, own)
        alone = [heard(wave[None, :length], own)[0] for wave, length in zip(waves, LENGTHS.tolist(), strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            assert products.serves(waves)
            found = convolve(own, waves, LENGTHS, kernel)
            padded = convolve(own, waves, LENGTHS, None)
    assert found.dtype == torch.bfloat16 and found.shape == whole.shape
    for row, expected in zip(found.float(), alone, strict=True):
        near = (row[:, : expected.shape[1]] - expected).norm() / expected.norm()
        assert near < 0.01
    assert (padded.float() - whole).norm() / whole.norm() < 0.01


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_the_group_norm_is_made_part_of_the_filters(offset):
    """Nothing is lost before it is rounded, not even where the waveform lies far from zero."""
    own, waves = layers("hubert", "group", True), waveforms() + offset
    with torch.no_grad():
        expected = own[0](waves[:1, None])[0]
        windows, filters, shift = products.normalised(
            waves[0].unfold(0, 10, 5), own[0].conv.weight[:, 0].T, own[0].layer_norm
        )
        found = torch.nn.functional.gelu(windows @ filters + shift).T
    assert torch.allclose(found, expected, atol=1e-4)


def test_other_calls_are_left_to_convolutions():
    waves = torch.zeros(1, 400)
    with torch.no_grad():
        assert not products.serves(waves)
        with torch.autocast("cpu", torch.float16):
            assert not products.serves(waves)
    with torch.autocast("cpu", torch.bfloat16):
        assert not products.serves(waves)  # a gradient may be wanted
