"""What a merged file holds, and under which names.

The upstream alone; or, as in θ0's own file (`Wav2Vec2ForPreTraining`), the head of the pre-training too, so that the
pre-training can go on from it. The head is θ0's: no fine-tuned upstream has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.checkpoints.folder import of_upstream, stored_as
from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import SafetensorsWriter, TensorInfo


def prefix_of(base: FolderReader) -> str:
    """What stands before the upstream's canonical names."""
    return base.pretraining_head.prefix if base.pretraining_head else ""


def file_of(base: FolderReader, infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Names, types and shapes of the whole file, in order: the upstream's, then the head's.

    Args:
        base: θ0.
        infos: of the merged upstream, by canonical names.
    """
    upstream = {prefix_of(base) + name: info for name, info in infos.items()}
    return upstream | {name: base.head_info(name) for name in _head(base)}


def write_head(base: FolderReader, writer: SafetensorsWriter) -> None:
    """The last part of the file: θ0's head, bit for bit."""
    for name in _head(base):
        writer.write(name, base.read_head(name))


def config_of(base: FolderReader, infos: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """The configuration beside such a file: it names θ0's class with the head, and the upstream's without."""
    config = base.config if base.pretraining_head else of_upstream(base.config)
    return stored_as(config, (info.dtype for info in file_of(base, infos).values()))


def _head(base: FolderReader) -> tuple[str, ...]:
    return base.pretraining_head.names if base.pretraining_head else ()
