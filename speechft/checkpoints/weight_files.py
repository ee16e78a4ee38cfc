"""Where a Hugging Face folder has its weights: in one file, or in several with an index that says which has what."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from speechft.checkpoints.unpickle import load_untrusted, unreadable
from speechft.errors import SpeechFTError
from speechft.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
WEIGHT_FILES = (WEIGHTS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which they are looked for; transformers' names."""


def weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """The files that hold a folder's weights, and which of their tensors count: None for all of the one file, else
    those that the index gives to each of several.

    Raises:
        SpeechFTError: there are none, or a damaged index.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            return _listed(path) if path.suffix == ".json" else {path: None}
    raise SpeechFTError(
        f"{folder / WEIGHTS} is missing", "the folder is incomplete; copy or convert the checkpoint again"
    )


def _listed(index: Path) -> dict[Path, list[str] | None]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    inside = isinstance(places, dict) and all(isinstance(one, str) and Path(one).name == one for one in places.values())
    if not places or not inside:  # a file elsewhere is none of the folder's
        raise SpeechFTError(f"{index} names no files of weights", "copy the folder again")
    files: dict[Path, list[str] | None] = {}
    for file in sorted(set(places.values())):
        if not (index.parent / file).is_file():
            raise SpeechFTError(f"{index.parent / file} is missing", f"{index.name} names it; copy the folder again")
        files[index.parent / file] = sorted(name for name, place in places.items() if place == file)
    return files


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, under their names in its file or files.

    Raises:
        SpeechFTError: files are missing or damaged, or lack a tensor that the index gives to them.
    """
    found = {}
    for path, names in weight_files(folder).items():
        tensors = read_tensors(path)
        check_listed(path, names, tensors)
        found.update(tensors if names is None else {name: tensors[name] for name in names})
    return found


def check_listed(path: Path, names: Sequence[str] | None, found: Container[str]) -> None:
    """Whether a file holds what the index says.

    Raises:
        SpeechFTError: it lacks a tensor.
    """
    lacking = [name for name in names or () if name not in found]
    if lacking:
        raise SpeechFTError(
            f"{path} lacks {lacking[0]}, which the index says is in it",
            "the files are not of one model; copy them again",
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `.bin` one without unpickling anything but tensors.

    Raises:
        SpeechFTError: missing, truncated, or no such file at all.
    """
    if not path.is_file():
        raise SpeechFTError(f"{path} is missing", "the folder is incomplete; copy or convert the checkpoint again")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = load_untrusted(path)
    except SpeechFTError:
        raise
    except Exception as error:  # every reader has its own exception for a damaged file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise unreadable(path, first) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise SpeechFTError(f"{path} holds more than tensors", "convert it to a Hugging Face folder first")
    return dict(loaded)
