"""Random changes of a training waveform: another voice on top, another frequency response.

Everything draws from torch's generator, which the training loop sets at every step, so a resumed run repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from speechft.data.audio import SAMPLE_RATE


def mixed(waves: Sequence[Tensor], probability: float, snr: tuple[float, float]) -> list[Tensor]:
    """Sometimes add a piece of another utterance of the batch, at most half as long (WavLM, 2110.13900, III-B).

    Args:
        waves: `[samples]` each.
        probability: of adding, for each.
        snr: range of the utterance's level over what is added, in dB.
    """
    results = []
    for index, wave in enumerate(waves):
        if len(waves) > 1 and float(torch.rand(())) < probability:
            other = waves[(index + 1 + int(torch.randint(len(waves) - 1, ()))) % len(waves)]
            length = int(min(len(other), len(wave) // 2))
            start = int(torch.randint(len(wave) - length + 1, ()))
            ratio = snr[0] + (snr[1] - snr[0]) * float(torch.rand(()))
            gain = (wave.square().mean() / other.square().mean().clamp(min=1e-9)).sqrt() * 10 ** (-ratio / 20)
            wave = wave + functional.pad(gain * other[:length], (start, len(wave) - start - length))
        results.append(wave)
    return results


def coloured(waves: Sequence[Tensor], probability: float, strength: float) -> list[Tensor]:
    """Sometimes pass an utterance through a random smooth frequency response, as another microphone would.

    The response is a tilt (spread 2 dB an octave) and five broad bumps or dips (spread 6 dB), all times `strength`; the
    level stays.

    Args:
        waves: `[samples]` each, at 16 kHz.
        probability: of filtering, for each.
        strength: 1 is a strong difference between microphones.
    """
    results = []
    for wave in waves:
        if float(torch.rand(())) < probability:
            size = -(-wave.numel() // 512) * 512  # a length that is quick to transform
            spectrum = torch.fft.rfft(wave, n=size)
            octaves = torch.log2(
                torch.arange(spectrum.numel(), device=wave.device).clamp(min=1) * (SAMPLE_RATE / size) / 1000
            ).clamp(min=-4.5)  # from 1 kHz
            centres, widths = -3.5 + 6.5 * torch.rand(5), 0.25 + 0.75 * torch.rand(5)
            heights, tilt = 6 * torch.randn(5), 2 * torch.randn(())
            decibels = tilt.to(wave.device) * octaves
            for centre, width, height in zip(centres.tolist(), widths.tolist(), heights.tolist(), strict=True):
                decibels = decibels + height * torch.exp(-0.5 * ((octaves - centre) / width) ** 2)
            changed = torch.fft.irfft(spectrum * 10 ** (strength * decibels / 20), n=size)[: wave.numel()]
            wave = changed * (wave.square().mean() / changed.square().mean().clamp(min=1e-12)).sqrt()
        results.append(wave)
    return results
