"""Rooms, channels and noises: what stands between a speaker's mouth and the file.

Strong on purpose. Every recording session has its own frequency response, room and noise, so that an average spectrum
says more about the session than about the speaker, and a model has to look at how the sound moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from speechft.data.audio import SAMPLE_RATE
from speechft.data.synthetic.espeak import SAMPLE_RATE as ESPEAK_RATE

GRID = np.linspace(np.log2(50.0), np.log2(8000.0), 96, dtype=np.float32)
"""Frequencies that a response is drawn on: log2 of Hz, 96 points."""


@dataclass(frozen=True)
class Channel:
    """One session's microphone, line, room and background.

    Args:
        response: ``[96]`` float32 in dB on a logarithmic grid of frequencies from 50 Hz to 8 kHz.
        impulse: ``[taps]`` float32, the room's impulse response at 16 kHz.
        noise: ``[96]`` float32 in dB on the same grid.
        snr: of the session, in dB.
        swell: how deep the noise swells and ebbs, 0 to 1.
    """

    response: np.ndarray
    impulse: np.ndarray
    noise: np.ndarray
    snr: float
    swell: float


def _bands(rng: np.random.Generator, count: int, height: float, narrowest: float, widest: float) -> np.ndarray:
    """``count`` random bumps and dips in dB, ``[96]``: ``height`` is their spread in dB, widths are in octaves."""
    centres = rng.uniform(GRID[0] + 0.5, GRID[-1], (count, 1))
    widths = rng.uniform(narrowest, widest, (count, 1))
    return rng.normal(0.0, height, count) @ np.exp(-0.5 * ((GRID - centres) / widths) ** 2)


def _smooth(rng: np.random.Generator, tilt: float, bands: int, height: float) -> np.ndarray:
    """A random smooth curve in dB, ``[96]``: a tilt in dB an octave, and broad bumps and dips."""
    return rng.normal(0.0, tilt) * (GRID - 10.0) + _bands(rng, bands, height, 0.25, 1.0)


def _edge(frequency: float, slope: float, above: bool) -> np.ndarray:
    """A soft band edge in dB, ``[96]``: ``slope`` dB an octave beyond ``frequency`` (Hz)."""
    beyond = GRID - np.log2(frequency) if above else np.log2(frequency) - GRID
    return -slope * np.maximum(beyond, 0.0)


def draw_channel(rng: np.random.Generator) -> Channel:
    """A session's channel.

    Args:
        rng: the session's generator.
    """
    # The broad bands hide a speaker's average formants, the narrow ones the harmonics of an average pitch.
    response = _smooth(rng, tilt=1.2, bands=5, height=3.5) + _bands(rng, 14, 1.5, 0.06, 0.25)
    if rng.random() < 0.2:  # a telephone's band, with soft edges
        response = response + _edge(rng.uniform(250, 400), 18, False) + _edge(rng.uniform(3000, 3800), 30, True)
    else:
        response = response + _edge(rng.uniform(60, 250), 12, False) + _edge(rng.uniform(3500, 8000), 15, True)
    decay = rng.uniform(0.1, 0.5)
    length = int(0.8 * decay * SAMPLE_RATE)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(length, dtype=np.float32) * np.exp(-6.9 / decay * time)
    tail[: int(rng.uniform(0.001, 0.006) * SAMPLE_RATE)] = 0.0  # the way to the nearest wall and back
    tail /= np.sqrt(np.sum(tail**2)) + 1e-9
    impulse = tail * np.float32(10 ** (-rng.uniform(2.0, 16.0) / 20))
    impulse[0] = 1.0
    # Most noise comes through the same channel; a flat one on top would bury the fricatives of a dull channel.
    noise = 0.8 * response + _smooth(rng, tilt=1.2, bands=4, height=4.0) - 4.5 * (GRID - 10.0)
    return Channel(
        response=np.clip(response, -45, 25).astype(np.float32),
        impulse=impulse.astype(np.float32),
        noise=np.clip(noise, -60, 40).astype(np.float32),
        snr=float(rng.uniform(15, 34)),
        swell=float(rng.uniform(0.0, 0.6)),
    )


@lru_cache(maxsize=1)
def _fast_sizes() -> np.ndarray:
    """Even lengths up to 4 million that are quick to transform, ascending."""
    sizes = {
        2**a * 3**b * 5**c for a in range(1, 22) for b in range(14) for c in range(10) if 2**a * 3**b * 5**c <= 1 << 22
    }
    return np.array(sorted(sizes))


def _transform_sizes(least: int, ratio: float) -> tuple[int, int]:
    """Lengths ``(before, after)`` with ``after / before`` near ``ratio``, ``before >= least``, both quick to transform.

    The ratio comes out within about 0.3 %: well below what separates two speakers.
    """
    sizes = _fast_sizes()
    first = int(np.searchsorted(sizes, least))
    before = sizes[first : first + 40]
    before = before[before <= 1.35 * least + 64]
    position = np.searchsorted(sizes, before * ratio)
    near = np.stack((sizes[position - 1], sizes[position]))
    error = np.abs(near / (before * ratio) - 1.0)
    # Take the shortest that is near enough; among none, the nearest.
    for index in range(before.size):
        best = int(error[:, index].argmin())
        if error[best, index] < 0.003:
            return int(before[index]), int(near[best, index])
    nearest = int(error.min(axis=0).argmin())
    return int(before[nearest]), int(near[error[:, nearest].argmin(), nearest])


def _shape(curve: np.ndarray, size: int) -> np.ndarray:
    """A curve in dB on the grid as amplitudes of a transform of ``size`` samples at 16 kHz, ``[size // 2 + 1]``."""
    frequencies = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(SAMPLE_RATE / size)
    position = np.log2(np.maximum(frequencies, np.float32(50.0)))
    return np.power(np.float32(10.0), np.interp(position, GRID, curve).astype(np.float32) / np.float32(20.0))


def coloured_noise(rng: np.random.Generator, samples: int, curve: np.ndarray, swell: float) -> np.ndarray:
    """Noise of a given colour.

    Args:
        rng: its generator.
        samples: how long, at 16 kHz.
        curve: ``[96]`` in dB on the grid of frequencies.
        swell: depth of a slow swelling and ebbing, 0 to 1.

    Returns:
        ``[samples]`` float32 of unit power.
    """
    from scipy import fft

    sizes = _fast_sizes()
    size = int(sizes[np.searchsorted(sizes, samples)])
    bins = size // 2 + 1
    spectrum = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64) * _shape(curve, size)
    noise = fft.irfft(spectrum, size)[:samples]
    if swell > 0:
        time = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
        wave = np.sin(2 * np.pi * (rng.uniform(0.3, 4.0) * time + rng.uniform(0, 1)), dtype=np.float32)
        noise = noise * (1 + np.float32(swell) * wave)
    return (noise / (np.sqrt(np.mean(noise**2)) + 1e-12)).astype(np.float32)


def breathe(samples: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Add a breath that follows the voice.

    Args:
        samples: ``[samples]`` float32 at espeak-ng's rate.
        amount: amplitude relative to the voice.
        rng: the utterance's generator.

    Returns:
        ``[samples]`` float32.
    """
    window = ESPEAK_RATE // 100
    power = np.cumsum(np.square(samples, dtype=np.float64))
    power = np.concatenate((np.zeros(window), power))
    envelope = np.sqrt(np.maximum(power[window:] - power[:-window], 0.0) / window).astype(np.float32)
    noise = rng.standard_normal(samples.size + 1, dtype=np.float32)
    return samples + np.float32(amount) * envelope * np.diff(noise)


def trim(samples: np.ndarray, rate: int, margin: float) -> np.ndarray:
    """Cut silence off both ends, leaving ``margin`` seconds of it.

    Args:
        samples: ``[samples]`` float32, clean.
        rate: samples a second.
        margin: in seconds.

    Returns:
        ``[samples]`` float32; empty when there is nothing but silence.
    """
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0.0))
    if loud.size == 0:
        return samples[:0]
    edge = round(margin * rate)
    kept = samples[max(loud[0] - edge, 0) : loud[-1] + 1 + edge]
    return np.pad(kept, (max(edge - loud[0], 0), max(loud[-1] + 1 + edge - samples.size, 0)))


def through(
    samples: np.ndarray, tract: float, channel: Channel, rng: np.random.Generator, length: int | None = None
) -> np.ndarray:
    """Scale the vocal tract, change the rate to 16 kHz, and pass through a session's channel, room and noise.

    All linear steps are one multiplication of spectra.

    Args:
        samples: ``[samples]`` float32, clean, at espeak-ng's rate.
        tract: above 1 raises all resonances and shortens the sound by that factor.
        channel: the session.
        rng: the utterance's generator: it moves the distance, the loudness and the noise a little.
        length: cut or fill with the channel's own noise to so many samples, the speech placed at random.

    Returns:
        ``[samples]`` int16 at 16 kHz.
    """
    from scipy import fft

    ratio = SAMPLE_RATE / (ESPEAK_RATE * tract)
    before, after = _transform_sizes(samples.size + int(channel.impulse.size / ratio) + 64, ratio)
    spectrum = fft.rfft(samples, before)[: after // 2 + 1]
    response = channel.response + _smooth(rng, tilt=0.5, bands=2, height=2.0)
    spectrum *= _shape(response, after) * fft.rfft(channel.impulse, after)
    speech = fft.irfft(spectrum, after)[: round(samples.size * after / before)]
    speech /= np.sqrt(np.mean(speech**2)) + 1e-9
    if length is not None:
        room = length - speech.size
        start = int(rng.integers(0, room + 1)) if room > 0 else 0
        speech = speech[:length]
        speech = np.pad(speech, (start, length - start - speech.size))
    snr = np.clip(channel.snr + rng.normal(0.0, 2.0), 12.0, 36.0)
    noise = coloured_noise(rng, speech.size, channel.noise, channel.swell)
    return to_int16(speech + noise * np.float32(10 ** (-snr / 20)), rng.uniform(-32.0, -20.0))


def to_int16(samples: np.ndarray, level: float) -> np.ndarray:
    """Set the loudness and round.

    Args:
        samples: ``[samples]`` float32.
        level: wanted root mean square, in dB below full scale; lower where the peaks would clip.

    Returns:
        ``[samples]`` int16.
    """
    scale = 10 ** (level / 20) / (np.sqrt(np.mean(samples**2)) + 1e-12)
    scale = min(scale, 0.95 / (np.abs(samples).max(initial=0.0) + 1e-12))
    return np.rint(samples * np.float32(scale * 32767.0)).astype(np.int16)
