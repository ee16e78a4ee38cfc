"""Reading `.pt` files without running anything that is in them.

`torch.load(weights_only=True)` admits tensors and plain containers. fairseq's files also hold their configuration as
objects (argparse, omegaconf, fairseq's dictionary) and, beside the weights, a loss as a numpy number. For exactly those
types an empty shell of ours stands in: it takes the attributes and can do nothing. Every other type is refused.
fairseq's choices (`fairseq/dataclass/constants.py`) are in no file: Python cannot pickle them, so they become texts.
"""

from __future__ import annotations

import re
import textwrap
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from speechft.errors import SpeechFTError

_ADMITTED = (
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "fairseq.data.dictionary.Dictionary",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
"""Types of fairseq's checkpoints that are replaced by shells."""

_NAMED = ("typing.Any", "builtins.dict", "builtins.list", "builtins.tuple", "builtins.int", "builtins.float",
          "builtins.str", "builtins.bool", "builtins.bytes")  # fmt: skip
"""Types that omegaconf's nodes name (as the type of their value); nothing is ever made of them."""


class Shell:
    """Holds the attributes of an object whose type is not admitted to be built; what it would be built from is lost."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update(state)


class _Unusable:
    """Stands for a type that is only named; building one is refused by the loader, as it has no state."""


def load_untrusted(path: Path) -> Any:
    """A `.pt` file's content: tensors, plain containers, and `Shell`s.

    Raises:
        SpeechFTError: missing, damaged, no such file at all, or holding any other type.
    """
    if not path.is_file():
        raise SpeechFTError(f"{path} is missing", "give the path of a checkpoint")
    if _start(path)[8:9] == b"{":
        raise SpeechFTError(f"{path} is a safetensors file", "give the folder that it lies in, with its config.json")
    shells = [(type(name.rsplit(".", 1)[1], (Shell,), {}), name) for name in _ADMITTED]
    names = [(type(name.rsplit(".", 1)[1], (_Unusable,), {}), name) for name in _NAMED]
    try:
        with torch.serialization.safe_globals([*shells, *names, defaultdict]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every layer has its own exception for a damaged file
        text = str(error)
        refused = re.search(r"unsupported (?:global: )?(?:global|class) ([\w.]+)", text, re.IGNORECASE)
        if refused:
            raise SpeechFTError(
                f"{path} holds more than weights ({refused.group(1)})",
                "that could run code, so it is refused; ask for the weights as safetensors or a plain state dictionary",
            ) from error
        if "Unsupported operand" in text and not _is_text(path):
            raise SpeechFTError(
                f"{path} is a pickle that PyTorch has not written",
                "that could run code, so it is refused; ask for the weights as safetensors or a plain state dictionary",
            ) from error
        lines = [line.strip() for line in text.splitlines() if line.strip() and "weights_only" not in line]
        first = lines[0].partition(". ")[0] if lines and not lines[0].isdigit() else ""
        reason = textwrap.shorten(first, 120, placeholder=" ...") or f"{type(error).__name__} while reading"
        raise unreadable(path, reason) from error


def unreadable(path: Path, reason: str) -> SpeechFTError:
    """The error for a file of weights that cannot be read; a text in its place is called what it is."""
    if _start(path).startswith(b"version https://git-lfs"):
        return SpeechFTError(f"{path} is Git LFS's pointer to a checkpoint", "fetch the file itself: git lfs pull")
    if _is_text(path):
        return SpeechFTError(f"{path} is a text, no checkpoint", "give the file of the weights")
    return SpeechFTError(
        f"{path} is no readable checkpoint ({reason})", "it is truncated or of another format; copy it again"
    )


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError:
        return b""


def _is_text(path: Path) -> bool:
    """Whether a file begins as no archive, safetensors file or binary pickle does: with printable characters alone."""
    start = _start(path)
    return (
        not start.startswith(b"PK")
        and start.isascii()
        and bool(start.strip())
        and all(character.isprintable() or character in "\t\r\n" for character in start.decode())
    )


def plain(value: Any) -> Any:
    """Configuration objects as plain dictionaries, lists and scalars.

    Args:
        value: what `load_untrusted` gave: omegaconf's nodes carry their value in `_content` or `_val`, a namespace
            and a dictionary theirs as attributes.
    """
    if isinstance(value, (Shell, Namespace)):  # s3prl's compatibility patch admits the real Namespace everywhere
        inside = value.__dict__
        for key in ("_content", "_val"):
            if key in inside:
                return plain(inside[key])
        return plain(inside)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
