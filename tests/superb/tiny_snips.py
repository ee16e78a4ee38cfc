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


def make_one_letter(librispeech: Path, snips: Path) -> None:
    """All say `A`, which any head learns in a few steps; of the three test utterances one is labelled otherwise."""
    transcripts, counts = [], {"train": 8, "valid": 2, "test": 3}
    for split, name in (("train", "train-clean-100"), ("valid", "dev-clean"), ("test", "test-clean")):
        lines = []
        for number in range(counts[split]):
            other = split == "test" and number == 2
            utterance = f"1-2-{number:04d}"
            write(librispeech / name / "1" / "2" / f"{utterance}.flac", tone(300, 0.12, number))
            lines.append(f"{utterance} {'A A' if other else 'A'}\n")
            utterance = f"{SPEAKERS[split][0]}-snips-{split}-{number}"
            write(snips / split / f"{utterance}.wav", tone(300, 0.14, number))
            words, slots = ("A BC", "album artist") if other else ("A", "album")
            transcripts.append(f"{utterance} BOS {words} EOS\tO {slots} Play\n")
        (librispeech / name / "1" / "2" / "1-2.trans.txt").write_text("".join(lines))
    (snips / "all.iob.snips.txt").write_text("".join(transcripts))
    (snips / "slots.txt").write_text("O\nalbum\nartist")
