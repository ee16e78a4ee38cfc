"""From one checkpoint format to another."""

from __future__ import annotations

from pathlib import Path

from speechft.checkpoints.folder import Checkpoint, read_folder, write_folder
from speechft.checkpoints.native import read_native, write_native
from speechft.errors import UsageError
from speechft.files import cache_dir, sha256_file


def read_checkpoint(path: Path) -> Checkpoint:
    """A Hugging Face folder or a native `.pt` file."""
    return read_native(path) if path.is_file() else read_folder(path)


def as_folder(path: Path) -> Path:
    """The path itself where it is a folder; a native file's Hugging Face folder, kept in the cache by its hash."""
    if not path.is_file():
        return path
    folder = cache_dir() / "converted" / sha256_file(path)[:24]
    return folder if folder.is_dir() else write_folder(folder, read_native(path))


def convert(source: Path, out: Path, to: str) -> Path:
    """Write `source` as a Hugging Face folder (`hf`) or as s3prl's `.pt` file (`s3prl`).

    Args:
        source: a folder or a `.pt` file.
        out: must not exist yet: a conversion never replaces a checkpoint.
        to: the format.

    Raises:
        UsageError: `out` exists, or the format is unknown.
        SpeechFTError: the source is damaged, or the format cannot hold it.
    """
    if to not in ("hf", "s3prl"):
        raise UsageError(f"unknown format {to!r}", "known: hf, s3prl")
    if out.exists():
        raise UsageError(f"{out} exists already", "choose another name, or remove it first")
    checkpoint = read_checkpoint(source)
    return write_folder(out, checkpoint) if to == "hf" else write_native(out, checkpoint, str(source))
