"""LibriSpeech (Panayotov et al., ICASSP 2015)."""

from __future__ import annotations

from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout

WHAT = "LibriSpeech"
WHERE = "get it from openslr.org/12 and give the folder that holds train-clean-100/ and so on"


def librispeech(root: str, split: str) -> list[Utterance]:
    """`SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTT.flac` and `SPEAKER-CHAPTER.trans.txt`; genders from `SPEAKERS.TXT`."""
    folder = corpus_folder(root, WHAT, WHERE, [split])
    genders = _genders(folder / "SPEAKERS.TXT")
    utterances = []
    for transcript in sorted((folder / split).glob("*/*/*.trans.txt")):
        speaker = transcript.parent.parent.name
        for line in read_lines(transcript, "transcript"):
            name, _, text = line.strip().partition(" ")
            path = transcript.parent / f"{name}.flac"
            utterances.append(Utterance(name, path, text, speaker, gender=genders.get(speaker), language="en"))
    if not utterances:
        raise wrong_layout(WHAT, folder / split, "SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt", WHERE)
    return utterances


def _genders(path: Path) -> dict[str, str]:
    """Speaker -> `f` or `m`; lines are `ID | SEX | SUBSET | MINUTES | NAME`, comments begin with a semicolon."""
    if not path.is_file():
        return {}
    rows = [line.split("|") for line in read_lines(path, "speaker list") if not line.startswith(";")]
    return {row[0].strip(): row[1].strip().lower() for row in rows if len(row) > 2}
