"""A tiny Audio SNIPS in SUPERB's layout: a tone for each letter, two kinds of slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_corpora import RATE, tone, write

SPEAKERS = {"train": ("Ivy", "Joey"), "valid": ("Amy",), "test": ("Brian",)}
SENTENCES = {
    "train": [
        ("PLAY BAD BAND", "O album album"), ("PLAY CAB", "O artist"), ("ADD CAB", "O artist"),
        ("ADD BAD BAND TO CAB", "O album album O artist"),
    ],
    "valid": [("PLAY CAB !", "O artist O"), ("ADD BAD BAND", "O album album"), ("ADD CAB & PLAY", "O artist O O")],
    "test": [("ADD CAB", "O artist"), ("PLAY BAD BAND", "O album album"), ("PLAY CAB TO BAND", "O artist O album")],
}  # fmt: skip


def make_snips(root: Path) -> None:
    """`slots.txt` has no newline at its end: s3prl would take what follows it for a slot without a name."""
    lines = []
    for split, speakers in SPEAKERS.items():
        for speaker in (*speakers, "Nobody"):
            for number, (words, slots) in enumerate(SENTENCES[split]):
                name = f"{speaker}-snips-{split}-{number}"
                letters = [tone(150 + 90 * (ord(c) - 60), 0.08, number + i) for i, c in enumerate(words) if c.isalpha()]
                silence = np.zeros(RATE // 50, dtype=np.float32)
                write(root / split / f"{name}.wav", np.concatenate([silence, *letters, silence]))
                lines.append(f"{name} BOS {words} EOS\tO {slots} PlayMusic")
    write(root / "train" / "Ivy-snips-train-99.wav", tone(300, 0.2, 0))  # without a transcript
    (root / "all.iob.snips.txt").write_text("\n".join(lines) + "\n")
    (root / "slots.txt").write_text("O\nalbum\nartist")
