"""Another voice: pitch and formants move as told, time does not."""

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from speechft.data.voices import other_voices, revoiced
from speechft.errors import UsageError

RATE = 16_000


def _vowel(pitch: float, formant: float, seconds: float = 1.0) -> torch.Tensor:
    """Pulses through a resonance."""
    source = np.zeros(round(seconds * RATE))
    source[np.arange(0, len(source), RATE / pitch).astype(int)] = 1.0
    radius, angle = np.exp(-np.pi * 150 / RATE), 2 * np.pi * formant / RATE
    wave = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], source)
    return torch.from_numpy(0.1 * wave / np.abs(wave).max()).float()


def _pitch(wave: torch.Tensor) -> float:
    """By the highest peak of the autocorrelation between 60 and 500 Hz."""
    middle = wave[4000:12000].double().numpy()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(middle, 2**15)) ** 2)
    lags = np.arange(RATE // 500, RATE // 60)
    return RATE / lags[correlation[lags].argmax()]


def _formant(wave: torch.Tensor) -> float:
    """The centre of the spectrum's power between 300 and 3000 Hz, in Hz, after smoothing over harmonics."""
    power = np.abs(np.fft.rfft(wave[4000:12000].double().numpy() * np.hanning(8000))) ** 2
    smooth = np.convolve(power, np.hanning(300), "same")
    inside = slice(150, 1500)  # 2 Hz a bin
    return 2.0 * (150 + smooth[inside].argmax())


@pytest.mark.parametrize(("pitch", "formants"), [(1.5, 1.0), (0.7, 1.0), (1.0, 1.3), (1.0, 0.75), (1.4, 0.8)])
def test_pitch_and_formants_move_apart_from_each_other(pitch, formants):
    wave = _vowel(120, 1000)
    changed = revoiced(wave, pitch, formants)
    assert changed.shape == wave.shape and torch.isfinite(changed).all()
    assert _pitch(wave) == pytest.approx(120, rel=0.02) and _formant(wave) == pytest.approx(1000, rel=0.06)
    assert _pitch(changed) == pytest.approx(120 * pitch, rel=0.04)
    assert _formant(changed) == pytest.approx(1000 * formants, rel=0.1)
    assert changed.square().mean() == pytest.approx(float(wave.square().mean()), rel=1e-3)


@pytest.mark.parametrize("pitch", [0.6, 1.7])
def test_time_stays(pitch):
    """Two sounds begin and end where they did, to within a frame of an upstream (20 ms)."""
    wave = _vowel(120, 1000, 2.0)
    wave[:6000] = wave[14000:20000] = wave[28000:] = 0
    power = revoiced(wave, pitch, 1.0).square().unfold(0, 480, 80).mean(1)
    loud = power > 0.3 * power[100:150].mean()
    edges = torch.nonzero(loud[1:] != loud[:-1]).flatten() * 80 + 280  # the middle between two windows' middles
    assert len(edges) == 4 and (edges - torch.tensor([6000, 14000, 20000, 28000])).abs().max() <= 320


def test_voices_are_drawn_from_torchs_generator():
    waves = [_vowel(120, 1000, 0.5), _vowel(200, 700, 0.3), torch.zeros(500)]
    torch.manual_seed(3)
    first = other_voices(waves, 2.0, 1.4)
    torch.manual_seed(3)
    again = other_voices(waves, 2.0, 1.4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(wave) for wave in first] == [len(wave) for wave in waves]
    assert torch.equal(first[2], waves[2])  # too short to have a voice
    assert torch.equal(other_voices(waves, 1.0, 1.0)[0], waves[0])
    pitches = [_pitch(other_voices([_vowel(120, 1000)], 2.0, 1.0)[0]) for _ in range(12)]
    assert 60 <= min(pitches) < 105 and 140 < max(pitches) <= 250
    for ranges in ((0.5, 1.0), (1.0, 9.0)):
        with pytest.raises(UsageError, match="give a factor from 1"):
            other_voices(waves, *ranges)
