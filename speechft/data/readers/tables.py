"""Plain tables of paths and labels: TSV, CSV or JSONL, by the file's suffix."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from speechft.data.readers.base import Utterance
from speechft.errors import SpeechFTError

_SPECIAL = {"id", "path", "speaker", "start", "end", "gender", "language"}
_AUDIO = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".sph", ".aiff"}
_PATHS = {"file", "filename", "file_name", "filepath", "file_path", "wav", "audio", "audio_path"}


def table(path: str, audio: str | None = None, text: str | None = "text", where: Mapping[str, Any] | None = None,
          prefix: str = "", rename: Mapping[str, str] | None = None) -> list[Utterance]:  # fmt: skip
    """A table whose columns have names: `path`, and any of `id`, `start` and `end` (seconds, for parts of long files),
    `speaker`, `gender`, `language`, a transcript column. Every other column becomes a label of that name.

    Without `id`, an utterance is called after its path (and its start). The suffix says what the file is: `.csv` has
    commas, `.jsonl` an object a line (a list of strings is joined by spaces), anything else tabs.

    Args:
        path: the file.
        audio: the folder that `path` entries start from; the table's own folder by default.
        text: the transcript's column; null when there is none.
        where: keep lines whose columns have these values.
        prefix: put before every id, to keep several tables apart.
        rename: their name -> ours, such as `{client_id: speaker}`.

    Raises:
        SpeechFTError: missing, without a column `path` or one that `where` asks for, or damaged.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise SpeechFTError(f"corpus table {file.absolute()} is missing", "check the path")
    base = Path(audio).expanduser() if audio else file.parent
    rows = [_renamed(row, rename or {}) for row in _rows(file)]
    if not rows:
        raise SpeechFTError(f"corpus table {file} has no lines below its header", "give it a line for each utterance")
    if rows and "path" not in rows[0]:
        columns = [str(one) for one in rows[0]]
        raise SpeechFTError(f"{file} has no column path; its columns: {', '.join(columns)}", _path_hint(columns))
    named = [text] if text and text != "text" else []  # a table of labels alone has no `text`
    for column in [*(where or {}), *named]:
        if rows and not any(column in row for row in rows):
            raise SpeechFTError(f"{file} has no column {column}", f"its columns: {', '.join(rows[0])}")
    kept = [row for row in rows if all(str(row.get(key)) == str(value) for key, value in (where or {}).items())]
    if not kept:
        asked = ", ".join(f"{key}: {value}" for key, value in (where or {}).items())
        values = {key: sorted({str(row.get(key)) for row in rows})[:8] for key in where or {}}
        there = "; ".join(f"{key} is {', '.join(found)}" for key, found in values.items())
        raise SpeechFTError(f"no line of {file} has {{{asked}}}", f"in it {there}")
    return [_utterance(row, base, text, prefix) for row in kept]


def _path_hint(columns: list[str]) -> str:
    """What to do about a table without `path`."""
    if len(columns) == 1 and "," in columns[0]:
        return "its commas look like a CSV's: name it .csv"
    if len(columns) == 1 and ";" in columns[0]:
        return "its columns stand between semicolons: save it with tabs, or as a .csv with commas"
    if any(Path(one).suffix.lower() in _AUDIO for one in columns):
        return "its first line should name the columns: path and text, for instance"
    theirs = next((one for one in columns if one.lower() in _PATHS), columns[0])
    return f"rename one: 'data.rename={{{theirs}: path}}'; a TSV or CSV names its columns in its first line"


def _rows(file: Path) -> list[dict[str, Any]]:
    suffix = file.suffix.lower()
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if suffix in (".jsonl", ".json"):
                return [_object(line, file, number) for number, line in enumerate(lines, 1) if line.strip()]
            if suffix == ".csv":
                table = csv.DictReader(lines)
            else:
                table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns = Counter(name for name in table.fieldnames or () if name)
            if twice := [name for name, count in columns.items() if count > 1]:
                raise SpeechFTError(f"corpus table {file} has two columns {twice[0]}", "give each a name of its own")
            return list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpeechFTError(f"corpus table {file} cannot be read ({error})", "save it as UTF-8 text") from error


def _object(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise SpeechFTError(f"{file} line {number} is no JSON ({error})", "give one object a line") from error
    if not isinstance(value, dict):
        raise SpeechFTError(f"{file} line {number} is no object", "give one object a line")
    return value


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in row.items() if isinstance(key, str)}


def _utterance(row: Mapping[str, Any], base: Path, text: str | None, prefix: str) -> Utterance:
    start, end = _seconds(row, "start"), _seconds(row, "end")
    path = str(row["path"])
    called = str(row.get("id") or PurePath(path).with_suffix("").as_posix() + (f"-{start:g}" if start else ""))
    return Utterance(
        prefix + called,
        base / path,
        word(row.get(text)) if text else None,
        word(row.get("speaker")),
        labels_of(row, {*_SPECIAL, text}),
        start or 0.0,
        end,
        word(row.get("gender")),
        word(row.get("language")),
    )


def labels_of(row: Mapping[str, Any], without: set[str | None]) -> dict[str, str]:
    """The columns that have no place of their own, as text."""
    found = {key: word(value) for key, value in row.items() if key not in without}
    return {key: value for key, value in found.items() if value is not None}


def word(value: Any) -> str | None:
    """A cell as text: lists joined by spaces, None for nothing."""
    if value is None:
        return None
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _seconds(row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column)
    if value in (None, ""):
        return None
    try:
        return float(str(value))
    except ValueError as error:
        called = row.get("id") or row["path"]
        raise SpeechFTError(f"utterance {called} has {column} {value!r}", "give it in seconds") from error
