"""Speakers: every one a point in a continuous space of bodies, voices and ways of speaking."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


def generator(*key: object) -> np.random.Generator:
    """A random generator of its own for whatever ``key`` names, the same on every machine and in every order."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest[:16], dtype="<u4"))


@dataclass(frozen=True)
class Speaker:
    """What makes a speaker; all of it is audible within a second or two, little of it in the long-term spectrum.

    Args:
        tract: scale of all resonances by resampling (above 1: a shorter vocal tract).
        pitch: low end of the voice's pitch, in Hz.
        pitch_range: from the low to the high end of an intonation contour, in Hz.
        rate: words a minute.
        formants: five factors on the resonances' frequencies, on top of ``tract``, in percent.
        widths: five factors on the resonances' widths, in percent.
        offsets: shifts of the first three resonances, in Hz: a vowel quality of one's own.
        breath: noise of breath relative to the voice (amplitude).
        roughness: 0 (none) to 7 (creaky).
        flutter: unsteadiness of the pitch; espeak-ng's own is 2.
        voicing: strength of voiced sounds, in percent.
        consonants: strength of voiceless sounds, in percent.
        stress_lengths: factors on espeak-ng's eight syllable lengths, in percent: a rhythm of one's own.
        intonation: which of espeak-ng's four sets of contours.
        word_gap: pause between words, in 10 ms.
        pause: how often a pause falls between two words.
        rate_jitter: spread of the rate from word to word (relative).
        pitch_jitter: spread of the pitch from word to word (espeak-ng's scale of 0 to 99).
    """

    tract: float
    pitch: int
    pitch_range: int
    rate: float
    formants: tuple[int, ...]
    widths: tuple[int, ...]
    offsets: tuple[int, ...]
    breath: float
    roughness: int
    flutter: int
    voicing: int
    consonants: int
    stress_lengths: tuple[int, ...]
    intonation: int
    word_gap: int
    pause: float
    rate_jitter: float
    pitch_jitter: float

    def voice(self, mood: float = 1.0) -> tuple[str, ...]:
        """The speaker as lines of an espeak-ng voice file.

        Args:
            mood: factor on the pitch, this time.
        """
        # The vocal tract is applied later, by resampling, which also raises the pitch: so the pitch is lowered here.
        low = mood * self.pitch / self.tract
        high = mood * (self.pitch + self.pitch_range) / self.tract
        lengths = (140, 120, 190, 170, 0, 0, 255, 300)
        offsets = (*self.offsets, 0, 0)
        return (
            f"pitch {round(low)} {round(high)}",
            *(
                f"formant {number} {frequency} 100 {width} {offset}"
                for number, (frequency, width, offset) in enumerate(
                    zip(self.formants, self.widths, offsets, strict=True), start=1
                )
            ),
            f"roughness {self.roughness}",
            f"flutter {self.flutter}",
            f"voicing {self.voicing}",
            f"consonants {self.consonants} {self.consonants}",
            "stressLength "
            + " ".join(str(round(a * b / 100)) for a, b in zip(lengths, self.stress_lengths, strict=True)),
            f"intonation {self.intonation}",
        )


def draw_speaker(*key: object) -> Speaker:
    """The speaker that ``key`` names."""
    rng = generator("speaker", *key)

    def whole(low: float, high: float) -> int:
        return round(float(rng.uniform(low, high)))

    def around(centre: float, spread: float, count: int) -> tuple[int, ...]:
        return tuple(round(float(v)) for v in rng.normal(centre, spread, count).clip(centre - 14, centre + 14))

    tract = float(rng.uniform(0.88, 1.14))
    # A shorter tract tends to go with a higher voice, but leaves about an octave of freedom.
    pitch = 78.0 * 2.0 ** float(rng.uniform(0.0, 1.0) + 1.9 * (tract - 0.88))
    return Speaker(
        tract=tract,
        pitch=round(pitch),
        pitch_range=round(pitch * float(rng.uniform(0.12, 0.75))),
        rate=float(rng.uniform(175, 265)),
        formants=around(100, 5.0, 5),
        widths=around(100, 8.0, 5),
        offsets=around(0, 35.0, 3)[:1] + tuple(2 * v for v in around(0, 35.0, 2)),
        breath=float(rng.uniform(0.0, 1.0) ** 2 * 0.3),
        roughness=whole(0, 6),
        flutter=whole(0, 12),
        voicing=whole(75, 125),
        consonants=whole(60, 120),
        stress_lengths=tuple(round(float(v)) for v in rng.normal(100, 14, 8).clip(70, 135)),
        intonation=int(rng.integers(1, 5)),
        word_gap=int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))),
        pause=float(rng.uniform(0.0, 0.15)),
        rate_jitter=float(rng.uniform(0.02, 0.18)),
        pitch_jitter=float(rng.uniform(0.0, 7.0)),
    )


def mark_up(text: str, speaker: Speaker, rng: np.random.Generator, rate: float) -> str:
    """Write a speaker's timing and pitch into a text, as commands that espeak-ng obeys and does not say.

    Args:
        text: words parted by spaces.
        speaker: whose habits.
        rng: this utterance's choices.
        rate: words a minute, before the jitter.

    Returns:
        the text with a rate and a pitch before every word, and commas where the speaker pauses.
    """
    parts = []
    words = text.split()
    for index, word in enumerate(words):
        word_rate = round(float(np.clip(rate * (1 + speaker.rate_jitter * rng.normal()), 90, 400)))
        word_pitch = round(float(np.clip(50 + speaker.pitch_jitter * rng.normal(), 25, 75)))
        pause = "," if index + 1 < len(words) and rng.random() < speaker.pause else ""
        parts.append(f"\x01{word_rate}S\x01{word_pitch}P{word}{pause}")
    return " ".join(parts)
