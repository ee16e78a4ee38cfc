"""IEMOCAP (Busso et al., 2008): five sessions of two actors, emotions by EmoEvaluation."""

from __future__ import annotations

import re
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, wrong_layout
from speechft.errors import UsageError

WHAT = "IEMOCAP"
WHERE = "ask for it at sail.usc.edu/iemocap and give IEMOCAP_full_release, the folder that holds Session1 ... Session5"
SESSIONS = (1, 2, 3, 4, 5)
TAKEN_AS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
"""The labels that count in SUPERB's ER, and what they count as."""


def labelled(root: Path, session: int) -> list[tuple[str, str]]:
    """The utterances of a session that count: name and label, in the order of the dialogues' names and their lines.

    Args:
        root: IEMOCAP_full_release, with `SessionN/dialog/EmoEvaluation/DIALOGUE.txt`.
    """
    found = []
    for table in sorted((root / f"Session{session}" / "dialog" / "EmoEvaluation").glob("*.txt")):
        if table.name.startswith("."):  # the release holds macOS's ._ files
            continue
        # a line of interest: [start - end] TAB utterance TAB label TAB [valence, activation, dominance]
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = [field for field in line.split("\t") if field]
            if line.startswith("[") and len(fields) >= 3 and fields[2] in TAKEN_AS:
                found.append((fields[1], TAKEN_AS[fields[2]]))
    return found


def wav_path(session: int, name: str) -> str:
    """Where an utterance's audio is, relative to the root."""
    return f"Session{session}/sentences/wav/{name.rpartition('_')[0]}/{name}.wav"


def iemocap(root: str, split: str, fold: int = 1, dev_session: int | None = None) -> list[Utterance]:
    """The four emotions of SUPERB's ER, split by session, so no speaker is in two splits; the label is `emotion`.

    Args:
        split: `train`, `dev` or `test`.
        fold: the session that is `test` and is in neither other split. Models fine-tuned so may be scored on this fold
            of SUPERB's ER, and on no other.
        dev_session: the session that is `dev`; null takes the one after the fold.
    """
    dev = dev_session if dev_session is not None else fold % len(SESSIONS) + 1
    if fold not in SESSIONS or dev not in SESSIONS or dev == fold:
        raise UsageError(f"IEMOCAP with fold {fold} and dev session {dev}", "choose two different sessions of 1 to 5")
    parts = {"test": [fold], "dev": [dev], "train": [session for session in SESSIONS if session not in (fold, dev)]}
    if split not in parts:
        raise UsageError(f"IEMOCAP has no split {split!r}", f"known: {', '.join(parts)}")
    names = [f"Session{session}/{part}" for session in parts[split]
             for part in ("dialog/EmoEvaluation", "sentences/wav")]  # fmt: skip
    folder = corpus_folder(root, WHAT, WHERE, names)
    utterances = []
    for session in parts[split]:
        texts = _texts(folder / f"Session{session}" / "dialog" / "transcriptions")
        for name, emotion in labelled(folder, session):
            # a dialogue is named after the actor with the markers; who speaks is the letter before the number
            who = name.rpartition("_")[2][:1]
            utterances.append(
                Utterance(name, folder / wav_path(session, name), texts.get(name), f"Ses{session:02d}{who}",
                          {"emotion": emotion, "session": str(session)}, gender=who.lower(), language="en")
            )  # fmt: skip
    if not utterances:
        raise wrong_layout(WHAT, folder, "SessionN/dialog/EmoEvaluation/DIALOGUE.txt with labels", WHERE)
    return utterances


def _texts(folder: Path) -> dict[str, str]:
    """Utterance -> transcript, from lines such as `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`"""
    found = {}
    for path in sorted(folder.glob("*.txt")):
        if path.name.startswith("."):
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := re.match(r"(Ses\w+) \[[\d.]+-[\d.]+\]: *(.+)", line):
                found[match[1]] = match[2].strip()
    return found
