"""A folder's tensors one at a time, or a piece of one, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from speechft.checkpoints.convention import overruled, settled
from speechft.checkpoints.folder import LEARNER, WHISPER_ENCODER, PretrainingHead, canonical_name, is_head
from speechft.checkpoints.hashing import WeightsHash
from speechft.checkpoints.tensor_file import ShardsReader, TensorInfo
from speechft.checkpoints.weight_files import read_weights, weight_files
from speechft.errors import SpeechFTError
from speechft.files import read_json

_PIECE = 1 << 18
"""Elements that are hashed at once."""


class FolderReader:
    """An upstream's folder, opened for reading tensor by tensor under canonical names; task heads are left out.

    Attributes:
        pretraining_head: what the weights hold beside the upstream, where that is the head of the pre-training.

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
        files = weight_files(folder)
        if all(path.suffix == ".safetensors" for path in files):
            self._file = ShardsReader(files)
            stored = list(self._file.names())
            self._names = {canonical_name(name): name for name in stored}
        else:
            weights = read_weights(folder)
            stored = list(weights)
            self._loaded = {canonical_name(name): value for name, value in weights.items()}
            self._names = {name: name for name in self._loaded}
        self.pretraining_head = PretrainingHead.within(self.config, stored)
        if self.config.get("model_type") == "whisper":
            self._names = _encoder_of_whisper(self._names)
        self._names = {name: raw for name, raw in self._names.items() if not is_head(name)}

    @classmethod
    def of_training(cls, checkpoint: Path, like: FolderReader) -> FolderReader:
        """The upstream inside a checkpoint of stage 1 (`checkpoints/step-N/`).

        Args:
            checkpoint: its folder.
            like: the run's fine-tuned folder, whose configuration it shares.

        Raises:
            SpeechFTError: its weights are damaged, or stand beside adapters.
        """
        reader = cls.__new__(cls)
        reader.folder, reader.config, reader.preprocessor = checkpoint, like.config, like.preprocessor
        reader.overruled = False  # whatever it was, it is the run's own choice
        reader._loaded, reader._file = None, ShardsReader({checkpoint / LEARNER: None})
        reader.pretraining_head = None
        if any(".lora_" in name for name in reader._file.names()):
            raise SpeechFTError(
                f"{checkpoint} holds θ0's weights and adapters (LoRA, DoRA), which become one at the run's end alone",
                f"merge {like.folder}",
            )
        # Upstreams keep their model as `model`, inside a wrapper where recordings are heard in pieces.
        names = {name.partition(".model.")[2]: name for name in reader._file.names() if name.startswith("upstream.")}
        reader._names = {name: raw for name, raw in names.items() if name and not is_head(name)}
        return reader

    def head_info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor of the pre-training's head."""
        if self._loaded is not None:
            return TensorInfo(self._loaded[name].dtype, tuple(self._loaded[name].shape))
        return self._file.info(name)

    def read_head(self, name: str) -> Tensor:
        """A tensor of the pre-training's head, whole."""
        return self._file.read(name) if self._loaded is None else self._loaded[name]

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

    def sha256(self) -> str:
        """`hashing.weights_sha256` of the folder, a piece of a tensor in memory at a time."""
        digest = WeightsHash()
        for name in self.names():
            info = self.info(name)
            digest.begin(name, info.dtype, info.shape)
            for start in range(0, info.size, _PIECE):
                digest.update(self.read(name, start, min(start + _PIECE, info.size)))
        return digest.hexdigest()

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
