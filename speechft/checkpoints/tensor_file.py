"""Safetensors files a tensor at a time, or a piece of one: read by plain reads or through a map, and written."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from speechft.checkpoints.unpickle import unreadable
from speechft.checkpoints.weight_files import check_listed
from speechft.errors import SpeechFTError
from speechft.files import begin_writing

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.uint16: "U16", torch.uint32: "U32",
    torch.uint64: "U64",
}  # fmt: skip
_BEGIN_EVERY = 16 << 20
"""Bytes after which the system is asked to begin with writing them to the disk."""
_TORCH = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's type and shape, known without reading it."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


class SafetensorsReader:
    """A safetensors file, read tensor by tensor or piece by piece.

    By plain reads into memory that is freed again: the pages of a memory map would count as this process's until the
    system wants them back, the whole file in the end.

    Args:
        path: the file; its header is checked against its size.

    Raises:
        SpeechFTError: it is missing or damaged, or holds a type that torch has not.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt"):
                pass
            self._stream = path.open("rb", buffering=0)
            header_size = int.from_bytes(self._stream.read(8), "little")
            header: dict[str, Any] = json.loads(self._stream.read(header_size))
        except (SafetensorError, OSError, ValueError) as error:
            raise unreadable(path, str(error)) from error
        self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
        self._entries: dict[str, tuple[TensorInfo, int]] = {}
        for name, entry in header.items():
            if entry["dtype"] not in _TORCH:
                raise SpeechFTError(
                    f"{name} of {path} is stored as {entry['dtype']}", "save the checkpoint in float32 or float16"
                )
            info = TensorInfo(_TORCH[entry["dtype"]], tuple(entry["shape"]))
            self._entries[name] = info, 8 + header_size + entry["data_offsets"][0]

    def names(self) -> list[str]:
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def info(self, name: str) -> TensorInfo:
        return self._entries[name][0]

    def offset(self, name: str) -> int:
        """The byte of the file that a tensor begins at."""
        return self._entries[name][1]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in its shape; with `stop`, its elements from `start` to before `stop` as `[stop - start]`.

        Raises:
            SpeechFTError: the file has become shorter since it was opened.
        """
        info, offset = self._entries[name]
        piece = torch.empty((info.size if stop is None else stop) - start, dtype=info.dtype)
        if piece.numel():
            target = piece.view(torch.uint8).numpy().data
            self._stream.seek(offset + start * piece.element_size())
            filled = 0
            while filled < len(target):  # one read gives 2 GiB at most
                count = self._stream.readinto(target[filled:])
                if not count:
                    raise SpeechFTError(f"{self.path} ends in the middle of {name}", "it changed meanwhile; try again")
                filled += count
        return piece.reshape(info.shape) if stop is None else piece

    def close(self) -> None:
        self._stream.close()


class MappedFile:
    """A safetensors file's tensors where they lie: a page is read when it is used, and can be forgotten again.

    For a look at a file that nobody changes meanwhile. What is computed from the tensors is as from any others; they
    themselves must not be changed.

    Args:
        path: the file.

    Attributes:
        tensors: name -> tensor.

    Raises:
        SpeechFTError: as `SafetensorsReader`.
    """

    def __init__(self, path: Path) -> None:
        reader = SafetensorsReader(path)
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants memory it could write to
        self.tensors: dict[str, Tensor] = {}
        for name in reader.names():
            info, offset = reader.info(name), reader.offset(name)
            if info.size == 0 or offset % info.dtype.itemsize:
                self.tensors[name] = reader.read(name)
            else:
                flat = torch.frombuffer(self._map, dtype=info.dtype, count=info.size, offset=offset)
                self.tensors[name] = flat.view(info.shape)
        reader.close()

    def forget(self) -> None:
        """Give the memory back to the system; what is used again is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class ShardsReader:
    """Several safetensors files as one: the weights of a large model with their index.

    Args:
        files: each one's tensors (`folder.weight_files`).

    Raises:
        SpeechFTError: a file is damaged, or lacks a tensor that is said to be in it.
    """

    def __init__(self, files: Mapping[Path, Sequence[str] | None]) -> None:
        self._readers: dict[str, SafetensorsReader] = {}
        for path, names in files.items():
            reader = SafetensorsReader(path)
            check_listed(path, names, reader)
            self._readers.update(dict.fromkeys(reader.names() if names is None else names, reader))

    def names(self) -> list[str]:
        return sorted(self._readers)

    def info(self, name: str) -> TensorInfo:
        return self._readers[name].info(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """As `SafetensorsReader.read`."""
        return self._readers[name].read(name, start, stop)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


class SafetensorsWriter:
    """Writes a safetensors file whose header is known beforehand, tensor after tensor in the order of the header.

    Args:
        path: the file.
        tensors: what will come, in this order.
        metadata: text kept in the header.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str] | None = None):
        self._path, self._expected = path, list(tensors.items())
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        offset = 0
        for name, info in self._expected:
            size = torch.empty((), dtype=info.dtype).element_size() * info.size
            header[name] = {
                "dtype": _TYPES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        self._header = text + b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
        self._next, self._within = 0, 0
        self._written = self._begun = 0

    def __enter__(self) -> SafetensorsWriter:
        self._stream: BinaryIO = self._path.open("wb", buffering=0)
        self._put(memoryview(len(self._header).to_bytes(8, "little") + self._header))
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """The next tensor.

        Raises:
            ValueError: not the one that the header announced.
        """
        expected, info = self._expected[self._next]
        if name != expected or tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
            raise ValueError(f"expected {expected} {info}, got {name} {tensor.dtype} {tuple(tensor.shape)}")
        self.write_piece(name, tensor.reshape(-1))

    def write_piece(self, name: str, piece: Tensor) -> None:
        """The next elements of the present tensor, `[elements]`; the last piece completes it.

        Raises:
            ValueError: another tensor or type than announced, or more elements.
        """
        expected, info = self._expected[self._next]
        self._within += piece.numel()
        if name != expected or piece.dtype != info.dtype or self._within > info.size:
            raise ValueError(f"expected {expected} {info}, got a piece of {name} {piece.dtype}, {self._within} so far")
        if piece.numel():
            self._put(piece.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        if self._within == info.size:
            self._next, self._within = self._next + 1, 0

    def _put(self, data: memoryview) -> None:
        while data:
            written = self._stream.write(data)
            self._written += written
            data = data[written:]
        if self._written - self._begun >= _BEGIN_EVERY:
            begin_writing(self._stream.fileno(), self._begun, self._written - self._begun)
            self._begun = self._written

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None and self._next != len(self._expected):
            raise ValueError(f"{len(self._expected) - self._next} tensors were announced and not written")
