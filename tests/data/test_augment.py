"""Augmentation: levels, lengths, and that nothing happens when it should not."""

import torch

from speechft.data.augment import coloured, mixed


def test_mixing_keeps_the_length_and_respects_the_level():
    torch.manual_seed(0)
    waves = [torch.randn(4000), 0.1 * torch.randn(3000)]
    for before, after in zip(waves, mixed(waves, 1.0, (10.0, 10.0)), strict=True):
        added = after - before
        heard = added[added != 0]
        assert after.shape == before.shape and 0 < len(heard) <= len(before) // 2
        snr = 10 * torch.log10(before.square().mean() / heard.square().mean())
        assert abs(float(snr) - 10) < 1.5
    assert mixed(waves, 0.0, (0.0, 0.0))[0] is waves[0]
    assert mixed(waves[:1], 1.0, (0.0, 0.0))[0] is waves[0]  # nobody to mix with


def test_a_channel_is_one_smooth_linear_filter_at_the_same_level():
    torch.manual_seed(0)
    wave = torch.zeros(8192)
    wave[4000] = 1.0
    noise = torch.randn(8192)
    torch.manual_seed(1)
    impulse = coloured([wave], 1.0, 1.0)[0]
    torch.manual_seed(1)
    filtered = coloured([noise], 1.0, 1.0)[0]
    torch.manual_seed(1)
    double = coloured([2 * noise], 1.0, 1.0)[0]
    assert torch.allclose(double, 2 * filtered, atol=1e-4)
    for before, after in ((wave, impulse), (noise, filtered)):
        assert torch.isclose(before.square().mean(), after.square().mean(), rtol=1e-3)
    response = 20 * torch.log10(torch.fft.rfft(impulse).abs())
    assert response.max() - response.min() > 6  # it does something
    assert (response[200:] - response[199:-1]).abs().max() < 0.5  # and is smooth: above 400 Hz, 2 Hz apart
    # The same filter for any signal: the noise's spectrum was multiplied by the same curve.
    ratio = 20 * torch.log10(torch.fft.rfft(filtered).abs() / torch.fft.rfft(noise).abs())
    assert torch.allclose(ratio - ratio.median(), response - response.median(), atol=0.05)
    assert coloured([noise], 0.0, 1.0)[0] is noise
