"""A data set of the Hugging Face hub by its name, or saved on the disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.console import progress
from speechft.data.readers.base import Utterance
from speechft.data.readers.tables import labels_of, word
from speechft.errors import MissingExtraError, SpeechFTError
from speechft.files import cache_dir, is_partial, whole_folder

_SPECIAL = {"id", "speaker", "gender", "language"}


def huggingface(name: str, split: str, config: str | None = None, revision: str | None = None, audio: str = "audio",
                text: str | None = "text", rename: Mapping[str, str] | None = None) -> list[Utterance]:  # fmt: skip
    """Its columns as those of a table (see `tables.py`); class labels by their names.

    Audio that the data set holds inside its own files is written, as it is, once to the cache folder; audio in files of
    its own is read where it is. Nothing is streamed.

    Args:
        name: a name on the hub, or a folder: one that `save_to_disk` wrote, or any that `load_dataset` takes.
        split: such as `train`, or a slice, `train[:10%]`.
        config: the subset, where there are several.
        revision: a commit of the data set; null takes the newest.
        audio: the column with the audio.
        text: the transcript's column; null when there is none.
        rename: their name -> ours, such as `{speaker_id: speaker}`.

    Raises:
        MissingExtraError: `datasets` is not installed.
        SpeechFTError: no such data set, split or column.
    """
    data = _load(name, split, config, revision)
    if audio not in data.column_names:
        raise SpeechFTError(
            f"data set {name} has no column {audio}", f"its columns: {', '.join(data.column_names)}; give data.audio"
        )
    if text and text not in data.column_names and text not in (rename or {}).values():
        raise SpeechFTError(
            f"data set {name} has no column {text}",
            f"its columns: {', '.join(data.column_names)}; give data.text, or null for none",
        )
    paths = _audio_files(data, name, split, audio)
    classes = {column: feature.names for column, feature in data.features.items() if hasattr(feature, "names")}
    names = dict(rename or {})
    utterances = []
    for index, (path, row) in enumerate(zip(paths, data.remove_columns(audio), strict=True)):
        row = {names.get(key, key): _named(value, classes.get(key)) for key, value in row.items()}
        plain = {key: value for key, value in row.items() if not isinstance(value, (dict, bytes))}
        utterances.append(
            Utterance(
                str(plain.get("id") or f"{split}-{index:08d}"), path, word(plain.get(text)) if text else None,
                word(plain.get("speaker")), labels_of(plain, {*_SPECIAL, text}),
                gender=word(plain.get("gender")), language=word(plain.get("language")),
            )
        )  # fmt: skip
    return utterances


def _load(name: str, split: str, config: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "datasets", "a Hugging Face data set") from error

    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
            if isinstance(loaded, datasets.DatasetDict):
                loaded = _split_of(loaded, name, split)
        else:
            loaded = datasets.load_dataset(
                str(folder) if folder.is_dir() else name, config, split=split, revision=revision
            )
    except SpeechFTError:
        raise
    except Exception as error:  # the library, the hub and the network raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechFTError(
            f"data set {name} cannot be loaded ({reason[:200]})",
            "check its name, data.config and split, and the network",
        ) from error
    # the bytes as they are: soundfile decodes them, like everything else
    for column, feature in loaded.features.items():
        if isinstance(feature, datasets.Audio):
            loaded = loaded.cast_column(column, datasets.Audio(decode=False))
    return loaded


def _split_of(loaded: Any, name: str, split: str) -> Any:
    """A split of several, or slices as `load_dataset` takes them (`train[:10%]`, `train+test`)."""
    import datasets

    if unknown := [one for one in re.sub(r"\[[^]]*\]", "", split).split("+") if one not in loaded]:
        raise SpeechFTError(f"data set {name} has no split {unknown[0]}", f"its splits: {', '.join(loaded)}")
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({one: len(loaded[one]) for one in loaded})
    found = [
        loaded[one.splitname].select(range(one.from_ or 0, len(loaded[one.splitname]) if one.to is None else one.to))
        for one in parts
    ]
    return found[0] if len(found) == 1 else datasets.concatenate_datasets(found)


def _named(value: Any, classes: list[str] | None) -> Any:
    return value if classes is None or not isinstance(value, int) or value < 0 else classes[value]


def _audio_files(data: Any, name: str, split: str, audio: str) -> list[Path]:
    """Where each row's audio is, after what has no file of its own has been written to the cache."""
    safe = re.sub(
        r"[^A-Za-z0-9._-]+", "-", f"{Path(name).name if Path(name).is_dir() else name}-{split}-{audio}"
    ).strip("-")
    folder = cache_dir() / "huggingface" / f"{safe}-{data._fingerprint}"
    column = data.select_columns(audio)
    if not folder.is_dir():
        rows = (row[audio] for row in column)
        first = next(rows, None)
        if first is not None and not (isinstance(first, Mapping) and {"bytes", "path"} <= first.keys()):
            raise SpeechFTError(f"column {audio} of data set {name} holds no audio", "give data.audio")
        if first is not None and first["bytes"] is None:
            return [Path(str(row[audio]["path"])) for row in column]
        with (
            progress(f"writing the audio of {name} to the cache", len(data)) as advance,
            whole_folder(folder) as partial,
        ):
            for index, row in enumerate(column):
                path = partial / _place(index, row[audio])
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(row[audio]["bytes"] or b"")
                advance(index + 1, "")
    found = {path.name.partition(".")[0]: path for path in folder.glob("*/*") if not is_partial(path)}
    return [found[f"{index:08d}"] for index in range(len(data))]


def _place(index: int, audio: Mapping[str, Any]) -> str:
    suffix = Path(str(audio["path"] or "")).suffix or ".audio"
    return f"{index // 1000:05d}/{index:08d}{suffix}"
