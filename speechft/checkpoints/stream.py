"""Tensors one at a time, or a piece of one: reading a folder or a safetensors file, writing one, without a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from speechft.checkpoints.convention import overruled, settled
from speechft.checkpoints.folder import LEARNER, WEIGHTS, WHISPER_ENCODER, canonical_name, is_head, read_tensors
from speechft.errors import SpeechFTError
from speechft.files import read_json

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.uint16: "U16", torch.uint32: "U32",
    torch.uint64: "U64",
}  # fmt: skip
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
            raise SpeechFTError(f"{path} is no readable checkpoint ({error})", "copy it again") from error
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

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def info(self, name: str) -> TensorInfo:
        return self._entries[name][0]

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


class FolderReader:
    """An upstream's folder, opened for reading tensor by tensor under canonical names; task heads are left out.

    Raises:
        SpeechFTError: the folder is incomplete or its weights are damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SpeechFTError(f"{folder} is no folder", "give a folder with config.json and model.safetensors")
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / "config.json")
        preprocessor = folder / "preprocessor_config.json"
        said: dict[str, Any] = read_json(preprocessor) if preprocessor.is_file() else {}
        self.preprocessor, self.overruled = settled(self.config, said), overruled(self.config, said)
        self._loaded: dict[str, Tensor] | None = None
        if (folder / WEIGHTS).is_file():
            self._file = SafetensorsReader(folder / WEIGHTS)
            self._names = {canonical_name(name): name for name in self._file.names()}
        else:
            self._loaded = {
                canonical_name(name): value for name, value in read_tensors(folder / "pytorch_model.bin").items()
            }
            self._names = {name: name for name in self._loaded}
        if self.config.get("model_type") == "whisper":
            self._names = _encoder_of_whisper(self._names)
        self._names = {name: raw for name, raw in self._names.items() if not is_head(name)}

    @classmethod
    def of_training(cls, checkpoint: Path, like: FolderReader) -> FolderReader:
        """The upstream inside a checkpoint of stage 1 (`checkpoints/step-N/`).

        Args:
            checkpoint: its folder.
            like: the run's fine-tuned folder, whose configuration it shares.
        """
        reader = cls.__new__(cls)
        reader.folder, reader.config, reader.preprocessor = checkpoint, like.config, like.preprocessor
        reader.overruled = False  # whatever it was, it is the run's own choice
        reader._loaded, reader._file = None, SafetensorsReader(checkpoint / LEARNER)
        # Upstreams keep their model as `model`, inside a wrapper where recordings are heard in pieces.
        names = {name.partition(".model.")[2]: name for name in reader._file.names() if name.startswith("upstream.")}
        reader._names = {name: raw for name, raw in names.items() if name and not is_head(name)}
        return reader

    def names(self) -> list[str]:
        return sorted(self._names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.info(name).shape for name in self.names()}

    def info(self, name: str) -> TensorInfo:
        if self._loaded is not None:
            tensor = self._loaded[name]
            return TensorInfo(tensor.dtype, tuple(tensor.shape))
        return self._file.info(self._names[name])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A tensor in its shape; with `stop`, its elements from `start` to before `stop` as `[stop - start]`."""
        if self._loaded is not None:
            tensor = self._loaded[name]
            return tensor if stop is None else tensor.reshape(-1)[start:stop]
        return self._file.read(self._names[name], start, stop)

    def close(self) -> None:
        if self._loaded is None:
            self._file.close()


def _encoder_of_whisper(names: Mapping[str, str]) -> dict[str, str]:
    """Names without the encoder's prefix, and without the decoder's tensors, where a whole model was saved."""
    inside = {
        name.removeprefix("model.").removeprefix("encoder."): raw
        for name, raw in names.items()
        if name.startswith(WHISPER_ENCODER)
    }
    return inside or dict(names)


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
            data = data[self._stream.write(data) :]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None and self._next != len(self._expected):
            raise ValueError(f"{len(self._expected) - self._next} tensors were announced and not written")
