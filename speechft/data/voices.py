"""The same words in another voice: pitch and formants of a waveform changed, its time left as it is.

For training that shall not hear who speaks (Spin, 2305.11072, section 2.1, after NANSY, 2110.14513). They have Praat do
it; here it is a phase vocoder and a warp of the spectral envelope, which run on the waveform's device, need no other
program, and draw from torch's generator, so that a resumed run repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from speechft.errors import UsageError

_SIZE, _HOP = 512, 128  # samples at 16 kHz: 32 ms windows, 8 ms apart
_LIFTER = 28  # cepstral coefficients (of 1/16 ms) that make the envelope: formants, not harmonics
_STEPS = 50  # ratios are fractions with this denominator, for the resampler
_MOST = 2.5  # natural logarithm of the largest gain of an envelope's warp, 22 dB


def other_voices(waves: Sequence[Tensor], pitch_range: float, formant_range: float) -> list[Tensor]:
    """Each waveform in a random other voice, as long as before and moving with it.

    A factor is drawn evenly from 1 to its range, and as often multiplied with as divided by, as in Spin's code
    (`src/data/dataset.py`, `random_formant_f0`).

    Args:
        waves: `[samples]` each, at 16 kHz.
        pitch_range: the fundamental frequency is multiplied by up to this, or divided.
        formant_range: the same for the formants.

    Raises:
        UsageError: a range below 1 or above 4.
    """
    for name, value in (("pitch_range", pitch_range), ("formant_range", formant_range)):
        if not 1.0 <= value <= 4.0:
            raise UsageError(f"{name} is {value}", "give a factor from 1 (no change) to 4")
    results = []
    for wave in waves:
        factors = 1 + torch.rand(2) * (torch.tensor([pitch_range, formant_range]) - 1)
        pitch, formants = torch.where(torch.rand(2) < 0.5, factors, 1 / factors).tolist()
        results.append(revoiced(wave, pitch, formants))
    return results


def revoiced(wave: Tensor, pitch: float, formants: float) -> Tensor:
    """A waveform with its pitch and its formants multiplied, `[samples]` -> `[samples]`, at the same level.

    Played faster by `pitch`, both move by it; a phase vocoder gives the time back; then the envelope, which is by now
    `pitch` times as wide, is warped to be `formants` times as wide.
    """
    from torchaudio.functional import phase_vocoder, resample

    steps = max(1, round(pitch * _STEPS))
    if wave.numel() < 2 * _SIZE or (steps == _STEPS and abs(formants - 1) < 0.5 / _STEPS):
        return wave
    faster = resample(wave, steps, _STEPS)
    window = torch.hann_window(_SIZE, device=wave.device)
    spectrum = torch.stft(faster, _SIZE, _HOP, window=window, return_complex=True)
    advance = torch.linspace(0, math.pi * _HOP, _SIZE // 2 + 1, device=wave.device)[:, None]
    spectrum = phase_vocoder(spectrum, faster.numel() / wave.numel(), advance)
    spectrum = spectrum * _warp(spectrum.abs(), formants * _STEPS / steps)
    frames = 1 + wave.numel() // _HOP
    spectrum = torch.nn.functional.pad(spectrum[:, :frames], (0, max(0, frames - spectrum.shape[1])))
    changed = torch.istft(spectrum, _SIZE, _HOP, window=window, length=wave.numel())
    return changed * (wave.square().mean() / changed.square().mean().clamp(min=1e-12)).sqrt()


def _warp(magnitudes: Tensor, ratio: float) -> Tensor:
    """Gains that make the spectral envelope of each frame `ratio` times as wide: `[bins, frames]` -> the same."""
    logs = magnitudes.clamp(min=1e-5).log()
    cepstrum = torch.fft.irfft(logs, n=_SIZE, dim=0)
    cepstrum[_LIFTER : _SIZE - _LIFTER + 1] = 0
    envelope = torch.fft.rfft(cepstrum, dim=0).real  # [bins, frames]
    bins = torch.arange(len(envelope), device=envelope.device) / ratio
    low = bins.long().clamp(max=len(envelope) - 2)
    share = (bins - low).clamp(max=1.0)[:, None]
    wanted = (1 - share) * envelope[low] + share * envelope[low + 1]
    return (wanted - envelope).clamp(-_MOST, _MOST).exp()
