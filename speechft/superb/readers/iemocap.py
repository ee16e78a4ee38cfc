"""IEMOCAP's own labels as the meta data that s3prl's ER expert reads.

An utterance counts if EmoEvaluation gives it as neutral, happy, excited (taken as happy), sad or angry; fold N tests
session N and trains on the other four (s3prl/downstream/emotion/IEMOCAP_preprocess.py). s3prl lists dialogues as the
file system happens to; here they are sorted, so the dev part, drawn from the list with a fixed seed, is the same
everywhere, but not the one of s3prl's own meta data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechft.data.readers import iemocap as corpus
from speechft.data.readers.iemocap import SESSIONS
from speechft.files import read_json, write_json

LABELS = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}


def labelled(root: Path, session: int) -> list[dict[str, str]]:
    """The utterances of a session that count: `path` (relative to the root), `label`, `speaker` of the dialogue.

    Args:
        root: IEMOCAP_full_release, with `SessionN/dialog/EmoEvaluation/DIALOGUE.txt` and
            `SessionN/sentences/wav/DIALOGUE/UTTERANCE.wav`.

    Returns:
        In the order of dialogue names, then of the lines in their files.
    """
    return [
        {"path": corpus.wav_path(session, name), "label": label, "speaker": name.split("_")[0]}
        for name, label in corpus.labelled(root, session)
    ]


def write_fold(root: Path, fold: int, folder: Path) -> None:
    """`FOLDER/SessionN/train_meta_data.json` and `test_meta_data.json` of one fold."""
    rest = [entry for session in SESSIONS if session != fold for entry in labelled(root, session)]
    for part, entries in (("train", rest), ("test", labelled(root, fold))):
        write_json(meta_file(folder, fold, part), {"labels": LABELS, "meta_data": entries})


def meta_file(folder: Path, fold: int, part: str) -> Path:
    """Where s3prl's expert looks for the `train` or `test` part of a fold."""
    return folder / f"Session{fold}" / f"{part}_meta_data.json"


def missing(root: Path, meta: Path | None, folds: Iterable[int], what: str) -> list[str]:
    """What is not there, a phrase each.

    Args:
        root: IEMOCAP.
        meta: a folder of s3prl's own meta data files, or None for IEMOCAP's labels.
        folds: those to be run.
        what: what IEMOCAP is and where to get it.

    Raises:
        SpeechFTError: a meta data file that is no JSON.
    """
    if meta is None:
        parts = [f"Session{n}/{part}" for n in SESSIONS for part in ("dialog/EmoEvaluation", "sentences/wav")]
        absent = [part for part in parts if not (root / part).is_dir()]
        if absent:
            return [f"{root} has no {', '.join(absent)} ({what})"]
        empty = [f"Session{n}" for n in SESSIONS if not labelled(root, n)]
        if empty:
            return [f"{root} has no labels in dialog/EmoEvaluation/*.txt of {', '.join(empty)} ({what})"]
        names = [entry["path"] for session in SESSIONS for entry in labelled(root, session)]
    else:
        files = [meta_file(meta, fold, part) for fold in folds for part in ("train", "test")]
        absent = [str(path.relative_to(meta)) for path in files if not path.is_file()]
        if absent:
            return [f"data.iemocap_meta={meta} has no {', '.join(absent)}"]
        bad = [str(path) for path in files if not _well_formed(read_json(path))]
        if bad:
            return [f"{', '.join(bad)} has no labels and meta_data of path and label"]
        names = sorted({str(entry["path"]) for path in files for entry in read_json(path)["meta_data"]})
    gone = [name for name in names if not (root / name).is_file()]
    if not gone:
        return []
    shown = ", ".join(gone[:5]) + (" ..." if len(gone) > 5 else "")
    return [f"{len(gone)} of the {len(names)} labelled utterances are not under {root} ({shown})"]


def _well_formed(content: Any) -> bool:
    if not isinstance(content, Mapping) or not isinstance(content.get("labels"), Mapping):
        return False
    entries = content.get("meta_data")
    return (
        isinstance(entries, list)
        and bool(entries)
        and all(isinstance(entry, Mapping) and "path" in entry for entry in entries)
        and all(entry.get("label") in content["labels"] for entry in entries)
    )
