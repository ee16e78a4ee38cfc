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


EMOTIONS = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")


def make_iemocap(root: Path) -> None:
    """Sessions, dialogues and EmoEvaluation tables as in IEMOCAP_full_release; the last two labels do not count."""
    generator = np.random.default_rng(3)
    for session in range(1, 6):
        labels = root / f"Session{session}" / "dialog" / "EmoEvaluation"
        labels.mkdir(parents=True)
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            for number, emotion in enumerate(EMOTIONS):
                name = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
                hertz = 300 * (1 + number) + 10 * session
                wave = tone(hertz, generator.uniform(0.2, 0.5), 100 * session + number)
                write(root / f"Session{session}" / "sentences" / "wav" / dialogue / f"{name}.wav", wave)
                lines += [f"[{number}.0000 - {number}.5000]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]", ""]
                lines += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
            (labels / f"{dialogue}.txt").write_text("\n".join(lines))
        (labels / f"._Ses0{session}F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\xff")
