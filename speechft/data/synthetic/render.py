"""Rendering: a planned clip becomes samples and a file. Runs in worker processes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from speechft.data.audio import SAMPLE_RATE
from speechft.data.synthetic import rooms
from speechft.data.synthetic.espeak import SAMPLE_RATE as ESPEAK_RATE
from speechft.data.synthetic.espeak import speak
from speechft.data.synthetic.layouts import NOISE, WORD, Clip
from speechft.data.synthetic.sentences import sentence
from speechft.data.synthetic.speakers import Speaker, draw_speaker, generator, mark_up
from speechft.errors import SpeechFTError

_MARGIN = 0.1
_SHORTEST = 0.08


@lru_cache(maxsize=256)
def _speaker(seed: int, name: str) -> Speaker:
    return draw_speaker(seed, name)


def _say(text: str, speaker: Speaker, rng: np.random.Generator, rate: float, margin: float) -> np.ndarray:
    """A speaker says a text: ``[samples]`` float32 at espeak-ng's rate, clean and trimmed."""
    # Resampling to the speaker's vocal tract also changes the speed: ask for the speed that undoes it.
    rate = float(np.clip(rate * rng.normal(1.0, 0.05) / speaker.tract, 110, 330))
    speech = speak(
        mark_up(text, speaker, rng, rate),
        speaker.voice(mood=float(np.exp(rng.normal(0.0, 0.07)))),
        rate=round(rate),
        volume=70,
        word_gap=speaker.word_gap,
        seed=int(rng.integers(1, 2**31 - 1)),
    )
    samples = rooms.trim(speech.samples.astype(np.float32) / 32768.0, ESPEAK_RATE, margin)
    if samples.size < _SHORTEST * ESPEAK_RATE:
        raise SpeechFTError(f"the synthetic speech for {text!r} is empty", "report this, with the seed and the size")
    return rooms.breathe(samples, speaker.breath, rng)


def _noise(clip: Clip, seed: int, rng: np.random.Generator) -> np.ndarray:
    """A background noise, ``[samples]`` int16 at 16 kHz."""
    samples = round(clip.seconds * SAMPLE_RATE)
    octaves = rooms.GRID - 10.0
    slope = {"white_noise": 0.0, "pink_noise": -3.0, "brown_noise": -6.0, "rain_on_glass": 2.0}.get(clip.text, -4.0)
    wave: np.ndarray = rooms.coloured_noise(
        rng, samples, slope * octaves + rng.normal(0, 1, octaves.size), rng.uniform(0, 0.4)
    )
    time = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    if clip.text == "mains_hum":
        pitch = rng.choice((50.0, 60.0)) * rng.uniform(0.995, 1.005)
        hum = sum(np.sin(2 * np.pi * pitch * n * time + rng.uniform(0, 6)) / n for n in range(1, 9))
        wave = 0.3 * wave + np.asarray(hum)
    elif clip.text == "rain_on_glass":
        drops = (rng.random(samples) < 60 / SAMPLE_RATE) * rng.exponential(12.0, samples)
        wave = wave + np.convolve(drops, np.exp(-np.arange(120) / 25.0) * np.sin(np.arange(120) * 1.3))[:samples]
    elif clip.text == "distant_voices":
        crowd = np.zeros(samples)
        for index in range(4):
            speaker = _speaker(seed, f"{clip.session} voice {index}")
            words = " ".join(sentence(rng) for _ in range(round(clip.seconds) + 1))
            voice = _say(words, speaker, rng, speaker.rate, 0.0)
            crowd += rooms.through(voice, speaker.tract, rooms.draw_channel(rng), rng, length=samples) / 32768.0
        spectrum = np.fft.rfft(crowd)
        spectrum /= 1 + (np.arange(spectrum.size) * SAMPLE_RATE / samples / 700.0) ** 2  # through a wall
        crowd = np.fft.irfft(spectrum, samples)
        wave = 0.4 * wave + crowd / (np.sqrt(np.mean(crowd**2)) + 1e-9)
    return rooms.to_int16(wave.astype(np.float32), rng.uniform(-50.0, -28.0))


def render(clip: Clip, seed: int) -> np.ndarray:
    """A clip's samples: they depend on the clip and the seed, not on what was rendered before.

    Args:
        clip: what to make.
        seed: the corpus's.

    Returns:
        ``[samples]`` int16 at 16 kHz.

    Raises:
        SpeechFTError: nothing could be heard.
    """
    rng = generator(seed, "clip", clip.path)
    if clip.kind == NOISE:
        return _noise(clip, seed, rng)
    speaker = _speaker(seed, clip.speaker)
    channel = rooms.draw_channel(generator(seed, "session", clip.session))
    if clip.kind == WORD:
        # Words alone are said more slowly than in sentences, yet have to fit into their second.
        samples = _say(clip.text, speaker, rng, 0.7 * speaker.rate, 0.02)
        return rooms.through(samples, speaker.tract, channel, rng, length=round(clip.seconds * SAMPLE_RATE))
    samples = _say(clip.text, speaker, rng, speaker.rate, _MARGIN * speaker.tract)
    return rooms.through(samples, speaker.tract, channel, rng)


def render_files(clips: list[Clip], seed: int, root: Path) -> list[int]:
    """Render clips and write them as 16 kHz mono 16 bit.

    Args:
        clips: what to make.
        seed: the corpus's.
        root: the corpus's folder; subfolders are made as needed.

    Returns:
        the length of each, in samples.
    """
    import soundfile

    lengths = []
    for clip in clips:
        samples = render(clip, seed)
        path = root / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(path), samples, SAMPLE_RATE, subtype="PCM_16")
        lengths.append(int(samples.size))
    return lengths
