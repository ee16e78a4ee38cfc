"""VoxCeleb1 (Nagrani et al., Interspeech 2017), split for speaker identification."""

from __future__ import annotations

import csv
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout
from speechft.errors import SpeechFTError, UsageError

WHAT = "VoxCeleb1"
WHERE = "get it and iden_split.txt from robots.ox.ac.uk/~vgg/data/voxceleb; give the folder with dev/wav (or wav)"
_CODES = {"train": "1", "dev": "2", "test": "3"}


def voxceleb1(root: str, split: str, iden_split: str | None = None) -> list[Utterance]:
    """`dev/wav/SPEAKER/VIDEO/UTT.wav` and `test/wav/...` (or both parts in one `wav/`), by the lines of iden_split.txt.

    Args:
        split: `train`, `dev` or `test`: 1, 2 or 3 in the list. All have the same 1 251 speakers.
        iden_split: the list; null looks for iden_split.txt in the root.
    """
    if split not in _CODES:
        raise UsageError(f"VoxCeleb1 has no split {split!r}", f"known: {', '.join(_CODES)}")
    folder = corpus_folder(root, WHAT, WHERE)
    listing = Path(iden_split).expanduser() if iden_split else folder / "iden_split.txt"
    if not listing.is_file():
        raise SpeechFTError(f"VoxCeleb1's list {listing} is missing", f"{WHERE}; data.iden_split=FILE when elsewhere")
    speakers = _speakers([folder / "dev" / "wav", folder / "test" / "wav", folder / "wav"])
    if not speakers:
        raise wrong_layout(WHAT, folder, "dev/wav/id10001/VIDEO/00001.wav", WHERE)
    known = _about(folder / "vox1_meta.csv")
    utterances = []
    for line in read_lines(listing, "list"):
        code, _, name = line.strip().partition(" ")
        if code != _CODES[split]:
            continue
        speaker = name.split("/")[0]
        gender, nationality = known.get(speaker, (None, None))
        labels = {"nationality": nationality} if nationality else {}
        path = speakers.get(speaker, folder / "dev" / "wav" / speaker) / name.partition("/")[2]
        utterances.append(
            Utterance(name.removesuffix(".wav").replace("/", "-"), path, None, speaker, labels, gender=gender)
        )
    if not utterances:
        raise wrong_layout(WHAT, listing, "lines such as `1 id10001/VIDEO/00001.wav`", WHERE)
    return utterances


def _speakers(parts: list[Path]) -> dict[str, Path]:
    """Speaker -> its folder. The parts of dev and test share no speaker."""
    return {folder.name: folder for part in parts if part.is_dir() for folder in sorted(part.iterdir())}


def _about(path: Path) -> dict[str, tuple[str | None, str | None]]:
    """Speaker -> gender (`f`, `m`) and nationality."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return {row["VoxCeleb1 ID"]: (row.get("Gender"), row.get("Nationality")) for row in rows if "VoxCeleb1 ID" in row}
