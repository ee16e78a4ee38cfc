"""CREMA-D (Cao et al., 2014): 91 actors say twelve sentences with six emotions."""

from __future__ import annotations

import csv
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, wrong_layout

WHAT = "CREMA-D"
WHERE = "get it from github.com/CheyneyComputerScience/CREMA-D and give the folder that holds AudioWAV/"
EMOTIONS = {"ANG": "ang", "DIS": "dis", "FEA": "fea", "HAP": "hap", "NEU": "neu", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock", "TIE": "That is exactly what happened", "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about", "TAI": "The airplane is almost full", "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock", "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket", "ITS": "I think I've seen this before", "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}  # fmt: skip
"""The code in a file's name -> what is said."""


def crema_d(root: str) -> list[Utterance]:
    """`AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav`; labels `emotion` and `level`.

    There are no official splits: `speaker_fraction` of the entry in `data` makes some that share no actor.
    """
    folder = corpus_folder(root, WHAT, WHERE, ["AudioWAV"])
    genders = _genders(folder / "VideoDemographics.csv")
    utterances = []
    for path in sorted((folder / "AudioWAV").glob("*.wav")):
        fields = path.stem.split("_")
        if len(fields) != 4 or fields[2] not in EMOTIONS:
            continue
        actor, sentence, emotion, level = fields
        utterances.append(
            Utterance(path.stem, path, SENTENCES.get(sentence), actor, {"emotion": EMOTIONS[emotion], "level": level},
                      gender=genders.get(actor), language="en")
        )  # fmt: skip
    if not utterances:
        raise wrong_layout(WHAT, folder, "AudioWAV/1001_DFA_ANG_XX.wav", WHERE)
    return utterances


def _genders(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["ActorID"]: row["Sex"][:1].lower() for row in csv.DictReader(lines)}
