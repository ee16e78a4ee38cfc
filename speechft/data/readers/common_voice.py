"""Common Voice (Ardila et al., LREC 2020): read by volunteers, in many languages, as MP3."""

from __future__ import annotations

import csv
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder
from speechft.errors import SpeechFTError

WHAT = "Common Voice"
WHERE = "get a language from commonvoice.mozilla.org and give the folder that holds en/ (or the like) with clips/"
_GENDERS = {"female": "f", "male": "m", "female_feminine": "f", "male_masculine": "m"}


def common_voice(root: str, language: str, split: str) -> list[Utterance]:
    """`LANGUAGE/SPLIT.tsv` and `LANGUAGE/clips/*.mp3`; labels `age`, `accents` and `variant` where given.

    Args:
        language: the folder's name, such as `en` or `zh-CN`.
        split: `train`, `dev`, `test`, or another table of the release, such as `validated`.
    """
    folder = corpus_folder(root, WHAT, WHERE, [f"{language}/{split}.tsv", f"{language}/clips"])
    table = folder / language / f"{split}.tsv"
    csv.field_size_limit(1 << 24)  # some sentences of `other.tsv` swallow lines
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    lacking = [name for name in ("client_id", "path", "sentence") if rows and name not in rows[0]]
    if lacking or not rows:
        raise SpeechFTError(f"{table} has no {'column ' + ', '.join(lacking) if lacking else 'lines'}", WHERE)
    return [_utterance(row, folder / language / "clips", language) for row in rows]


def _utterance(row: dict[str, str], clips: Path, language: str) -> Utterance:
    name = row["path"] if Path(row["path"]).suffix else f"{row['path']}.mp3"  # early releases left the suffix out
    labels = {key: row[key] for key in ("age", "accents", "variant") if row.get(key)}
    return Utterance(
        Path(name).stem, clips / name, row["sentence"], row["client_id"], labels, language=language,
        gender=_GENDERS.get(row.get("gender") or ""),
    )  # fmt: skip
