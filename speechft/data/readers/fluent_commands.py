"""Fluent Speech Commands (Lugosch et al., Interspeech 2019)."""

from __future__ import annotations

import csv
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder
from speechft.errors import SpeechFTError, UsageError

WHAT = "Fluent Speech Commands"
WHERE = "get fluent_speech_commands_dataset from fluent.ai and give the folder that holds data/ and wavs/"
_TABLES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
_COLUMNS = {"path", "speakerId", "transcription", "action", "object", "location"}


def fluent_commands(root: str, split: str) -> list[Utterance]:
    """`data/{train,valid,test}_data.csv`, whose paths start from the root; labels `action`, `object`, `location`."""
    if split not in _TABLES:
        raise UsageError(f"Fluent Speech Commands has no split {split!r}", f"known: {', '.join(_TABLES)}")
    folder = corpus_folder(root, WHAT, WHERE, [f"data/{_TABLES[split]}", "wavs"])
    rows = _rows(folder / "data" / _TABLES[split])
    if not rows or not rows[0].keys() >= _COLUMNS:
        lacking = ", ".join(sorted(_COLUMNS - (rows[0].keys() if rows else set())))
        raise SpeechFTError(f"{folder}/data/{_TABLES[split]} has no column {lacking}", WHERE)
    speakers = folder / "data" / "speaker_demographics.csv"
    genders = {row.get("speakerId"): row.get("gender") for row in _rows(speakers)} if speakers.is_file() else {}
    return [
        Utterance(
            Path(row["path"]).stem, folder / row["path"], row["transcription"], row["speakerId"],
            {slot: row[slot] for slot in ("action", "object", "location")},
            gender=(genders.get(row["speakerId"]) or "")[:1].lower() or None, language="en",
        )
        for row in rows
    ]  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
