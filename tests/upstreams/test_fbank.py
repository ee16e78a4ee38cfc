"""Filter banks by definition."""

import torch

from speechft.upstreams.load import load_upstream


def test_a_pure_tone_lands_in_its_band():
    upstream = load_upstream("fbank")
    wave = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    hidden = upstream([wave])
    assert hidden.last.shape == (1, 98, 240) and upstream.frame_rate == 100
    band = int(hidden.last[0, 50, :80].argmax())
    edges = torch.linspace(*(2595 * torch.log10(1 + torch.tensor([20.0, 7600.0]) / 700)), 82)
    centre = float(700 * (10 ** (edges[band + 1] / 2595) - 1))
    assert abs(centre - 1000) < 60


def test_deltas_are_slopes_and_batches_change_nothing():
    upstream = load_upstream("fbank")
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(length, generator=generator) for length in (8000, 4000, 100)]
    together = upstream(waves)
    for row, wave in enumerate(waves):
        alone = upstream([wave])
        count = int(alone.frames[0])
        assert torch.allclose(alone.last[0], together.last[row, :count], atol=1e-4)
    mels, deltas = together.last[0, :, :80], together.last[0, :, 80:160]
    expected = (2 * (mels[12] - mels[8]) + (mels[11] - mels[9])) / 10  # least-squares slope over five frames
    assert torch.allclose(deltas[10], expected, atol=1e-4)


def test_mean_normalised_features_average_to_nothing():
    from speechft.config.locate import read_group

    upstream = load_upstream({**read_group("upstream", "fbank"), "mean_norm": True})
    assert upstream([torch.randn(8000)]).last[0].mean(0).abs().max() < 1e-4


def test_every_setting_is_another_identity():
    from speechft.upstreams.fbank import Fbank

    keys = {Fbank("f", deltas, mean).identity.key for deltas in (0, 1, 2) for mean in (False, True)}
    assert len(keys) == 6
