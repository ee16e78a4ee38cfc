"""A tiny corpus in which every label can be heard: words are tones, speakers are timbres, emotions are tremolos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
WORDS = {"GO": (250.0, "O"), "AB": (400.0, "artist"), "JZ": (640.0, "genre"), "UP": (1000.0, "O")}
"""Word -> its pitch in Hz, its slot."""
SPEAKERS = {"ann": (1.0, 0.1, 0.1), "bob": (0.1, 1.0, 0.1), "eve": (0.2, 0.2, 1.0)}
"""Speaker -> the strength of each harmonic."""
EMOTIONS = {"neutral": 0.0, "happy": 12.0, "angry": 30.0}
"""Emotion -> tremolo in Hz."""
INTENTS = {"GO": ("start", "music", "here"), "AB": ("start", "music", "there"), "JZ": ("stop", "music", "here"),
           "UP": ("stop", "lights", "there")}  # fmt: skip


def word_wave(word: str, speaker: str, emotion: str, seconds: float, generator: np.random.Generator) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = WORDS[word][0] * generator.uniform(0.97, 1.03)
    wave = sum(level * np.sin(2 * np.pi * pitch * (k + 1) * time) for k, level in enumerate(SPEAKERS[speaker]))
    wave = wave * (1 + 0.9 * np.sin(2 * np.pi * EMOTIONS[emotion] * time)) * np.hanning(len(time)) ** 0.2
    return 0.15 * wave + 0.005 * generator.standard_normal(len(time))


def make_labelled(root: Path, train: int = 48, dev: int = 24, words: int = 2, seed: int = 0) -> Path:
    """`utterances.tsv` with all labels that the tasks read; the first word tells the keyword and the intent.

    Each utterance has `words` words of 0.25 s; speakers, emotions and first words go round, so classes are even.
    """
    generator = np.random.default_rng(seed)
    columns = ["id", "path", "split", "speaker", "text", "slots", "keyword", "emotion", "action", "object", "location"]
    lines = ["\t".join(columns)]
    root.mkdir(parents=True, exist_ok=True)
    for number in range(train + dev):
        speaker, emotion = list(SPEAKERS)[number % 3], list(EMOTIONS)[number // 3 % 3]
        said = [list(WORDS)[number // 2 % 4], *generator.choice(list(WORDS), words - 1)]
        waves = [word_wave(str(word), speaker, emotion, 0.25, generator) for word in said]
        soundfile.write(root / f"u{number}.wav", np.concatenate(waves), RATE)
        split = "train" if number < train else "dev"
        slots = " ".join(WORDS[word][1] for word in said)
        row = [f"u{number}", f"u{number}.wav", split, speaker, " ".join(said), slots, said[0].lower(), emotion]
        lines.append("\t".join([*row, *INTENTS[said[0]]]))
    table = root / "utterances.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table
