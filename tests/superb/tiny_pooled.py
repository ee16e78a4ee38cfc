"""Tiny corpora of IC, ER and QbE in the official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_corpora import tone, write

INTENTS = [
    ("activate", "lights", "kitchen"), ("activate", "music", "none"), ("deactivate", "lights", "kitchen"),
    ("bring", "newspaper", "none"),
]  # fmt: skip


def make_fluent_commands(root: Path) -> None:
    """data/*.csv as in the release: an unnamed index column, `path` relative to the root; pitch tells the intent."""
    (root / "data").mkdir(parents=True)
    generator = np.random.default_rng(2)
    for table, speakers in (("train", 4), ("valid", 1), ("test", 2)):
        lines = [",path,speakerId,transcription,action,object,location"]
        for speaker in range(speakers):
            for number, (action, thing, place) in enumerate(INTENTS):
                name = f"wavs/speakers/{table}{speaker}/{table}{speaker}{number}-aa.wav"
                wave = tone(300 * (number + 1) + 20 * speaker, generator.uniform(0.2, 0.6), 10 * speaker + number)
                write(root / name, wave)
                lines.append(f'{len(lines) - 1},{name},{table}{speaker},"Say, it",{action},{thing},{place}')
        (root / "data" / f"{table}_data.csv").write_text("\n".join(lines) + "\n")
