"""From one checkpoint format to another."""

from __future__ import annotations

from pathlib import Path

from speechft.checkpoints.convention import can_normalize, tell
from speechft.checkpoints.folder import Checkpoint, of_upstream, read_folder, write_folder
from speechft.checkpoints.native import HUB_ENTRIES, READ_FROM_FOLDERS, read_native, write_native
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import cache_dir, read_json, sha256_file

BESIDE = "s3prl.pt"
"""A native file inside a Hugging Face folder of the same weights."""


def read_checkpoint(path: Path) -> Checkpoint:
    """A Hugging Face folder or a native `.pt` file."""
    return read_native(path) if path.is_file() else read_folder(path)


def as_folder(path: Path) -> Path:
    """The path itself where it is a folder; a native file's Hugging Face folder, kept in the cache by its hash."""
    if not path.is_file():
        return path
    folder = cache_dir() / "converted" / sha256_file(path)[:24]
    return folder if folder.is_dir() else write_folder(folder, read_native(path))


def convert(source: Path, out: Path, to: str, normalize: bool | None = None) -> Path:
    """Write `source` as a Hugging Face folder (`hf`) or as s3prl's `.pt` file (`s3prl`).

    Args:
        source: a folder or a `.pt` file.
        out: must not exist yet: a conversion never replaces a checkpoint.
        to: the format.
        normalize: the input normalisation to write; None keeps the source's (`convention.py`).

    Raises:
        UsageError: `out` exists, the format is unknown, or a family that has no choice is to be normalised.
        SpeechFTError: the source is damaged, or the format cannot hold it.
    """
    if to not in ("hf", "s3prl"):
        raise UsageError(f"unknown format {to!r}", "known: hf, s3prl")
    if out.exists():
        raise UsageError(f"{out} exists already", "choose another name, or remove it first")
    checkpoint = read_checkpoint(source)
    if normalize is not None:
        if normalize and not can_normalize(checkpoint.config):
            raise UsageError(f"{source} takes waveforms as they are", "leave --normalize out")
        checkpoint.preprocessor = {**checkpoint.preprocessor, "do_normalize": normalize}
    elif checkpoint.overruled:
        tell(str(source))
    if checkpoint.dropped:
        checkpoint.config = of_upstream(checkpoint.config)
        say(f"the head in {source} is left out ({len(checkpoint.dropped)} tensors): the upstream alone is converted")
    return write_folder(out, checkpoint) if to == "hf" else write_native(out, checkpoint, str(source))


def check_beside(family: str, to: str | None, source: str) -> None:
    """Whether `add_beside` can do what is asked.

    Raises:
        UsageError: an unknown format, or a family that s3prl has no file for.
    """
    if to not in (None, "hf", "s3prl"):
        raise UsageError(f"unknown format {to!r}", "known: hf, s3prl")
    if to == "s3prl" and family not in HUB_ENTRIES:
        raise UsageError(f"{source} has no s3prl format ({family})", f"known: {', '.join(HUB_ENTRIES)}")


def add_beside(folder: Path, to: str | None, source: str) -> str | None:
    """Write `s3prl.pt` into a Hugging Face folder.

    Args:
        folder: complete but for it.
        to: `s3prl` writes it, `hf` does not; None does for families that s3prl cannot read from a folder.
        source: whose weights, for messages.

    Returns:
        The entry of `s3prl.hub` that loads the file; None where there is no file.

    Raises:
        SpeechFTError: it was asked for and s3prl's class does not compute this configuration.
    """
    family = str(read_json(folder / "config.json").get("model_type"))
    if to == "hf" or family not in HUB_ENTRIES or (to is None and family in READ_FROM_FOLDERS):
        return None
    try:
        write_native(folder / BESIDE, read_folder(folder), source)
    except SpeechFTError as error:
        if to == "s3prl":
            raise
        say(f"no {BESIDE} is written: {error}")
        return None
    return HUB_ENTRIES[family]
