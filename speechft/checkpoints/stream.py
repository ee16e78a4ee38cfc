"""Tensors one at a time: reading from a Hugging Face folder, writing a safetensors file, without holding a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from speechft.checkpoints.folder import WEIGHTS, canonical_name, is_head, read_tensors
from speechft.errors import SpeechFTError
from speechft.files import read_json

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TORCH = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's type and shape, known without reading it."""

    dtype: torch.dtype
    shape: tuple[int, ...]


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
        self.preprocessor: dict[str, Any] = read_json(preprocessor) if preprocessor.is_file() else {}
        self._loaded: dict[str, Tensor] | None = None
        file = folder / WEIGHTS
        if file.is_file():
            from safetensors import SafetensorError, safe_open

            try:
                self._file: Any = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise SpeechFTError(f"{file} is no readable checkpoint ({error})", "copy it again") from error
            self._names = {canonical_name(name): name for name in self._file.keys()}  # noqa: SIM118 (no mapping)
        else:
            self._loaded = {
                canonical_name(name): value for name, value in read_tensors(folder / "pytorch_model.bin").items()
            }
            self._names = {name: name for name in self._loaded}
        self._names = {name: raw for name, raw in self._names.items() if not is_head(name)}

    def names(self) -> list[str]:
        return sorted(self._names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.info(name).shape for name in self.names()}

    def info(self, name: str) -> TensorInfo:
        if self._loaded is not None:
            tensor = self._loaded[name]
            return TensorInfo(tensor.dtype, tuple(tensor.shape))
        part = self._file.get_slice(self._names[name])
        return TensorInfo(_TORCH[part.get_dtype()], tuple(part.get_shape()))

    def read(self, name: str) -> Tensor:
        return self._loaded[name] if self._loaded is not None else self._file.get_tensor(self._names[name])


class SafetensorsWriter:
    """Writes a safetensors file whose header is known beforehand, tensor after tensor in the order of the header.

    Args:
        path: the file.
        tensors: what will come, in this order.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self._path, self._expected = path, list(tensors.items())
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, info in self._expected:
            size = torch.empty((), dtype=info.dtype).element_size()
            for length in info.shape:
                size *= length
            header[name] = {
                "dtype": _TYPES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        self._header = text + b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
        self._next = 0

    def __enter__(self) -> SafetensorsWriter:
        self._stream: BinaryIO = self._path.open("wb")
        self._stream.write(len(self._header).to_bytes(8, "little") + self._header)
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """The next tensor.

        Raises:
            ValueError: not the one that the header announced.
        """
        expected, info = self._expected[self._next]
        if name != expected or tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
            raise ValueError(f"expected {expected} {info}, got {name} {tensor.dtype} {tuple(tensor.shape)}")
        if tensor.numel():
            self._stream.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._next += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None and self._next != len(self._expected):
            raise ValueError(f"{len(self._expected) - self._next} tensors were announced and not written")
