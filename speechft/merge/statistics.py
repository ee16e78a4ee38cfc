"""Statistics of a parent on speech that `fisher` and `regmean` weigh it by: one safetensors file a model.

| kind | a tensor | of |
|---|---|---|
| `fisher` | as the weight | every weight: the diagonal of the Fisher information, divided by its mean over the model |
| `regmean` | `[in, in]` | every linear layer's weight: XᵀX of its inputs, a mean over frames |

Names are those of the weights. The header says of which weights (their sha256), corpus and settings.
`merge/collect.py` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from speechft.checkpoints.tensor_file import SafetensorsReader
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.method import Method


class Statistics:
    """Of all parents, θ0's first, read tensor by tensor.

    Args:
        paths: a file a parent.
        kind: what they must hold.

    Raises:
        UsageError: another number of files than parents.
        SpeechFTError: a file is damaged, or of another kind.
    """

    def __init__(self, paths: Sequence[str | Path], kind: str, parents: int) -> None:
        if len(paths) != parents:
            raise UsageError(
                f"{len(paths)} files of statistics for {parents} models", "give one for each, the pre-trained one first"
            )
        self.paths = [Path(path).expanduser() for path in paths]
        for path in self.paths:
            if not path.is_file():
                raise SpeechFTError(f"{path} is missing", "collect it: speechft merge --method ... --corpus ...")
        self._files = [SafetensorsReader(path) for path in self.paths]
        for file in self._files:
            if file.metadata.get("kind") != kind:
                raise SpeechFTError(
                    f"{file.path} holds no {kind} statistics ({file.metadata.get('kind')})",
                    "collect them with this method and --corpus",
                )

    def read(self, name: str, shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> list[Tensor | None]:
        """Each parent's for one tensor, or the same elements of it; None where there is none.

        Args:
            name: the weight's.
            shape: the weight's.
            start, stop: as `SafetensorsReader.read`.

        Raises:
            SpeechFTError: of another shape than the weight needs.
        """
        found: list[Tensor | None] = []
        for file in self._files:
            if name not in file:
                found.append(None)
                continue
            expected = shape if file.metadata["kind"] == "fisher" else (shape[-1], shape[-1])
            if file.info(name).shape != expected:
                raise SpeechFTError(
                    f"{file.path} is of another model: {name} is {list(file.info(name).shape)}, not {list(expected)}",
                    "collect statistics of these models",
                )
            found.append(file.read(name, start, stop))
        return found

    def check(self, hashes: Sequence[str]) -> None:
        """Whether they were collected with these weights.

        Raises:
            SpeechFTError: with others.
        """
        for file, sha256 in zip(self._files, hashes, strict=True):
            if file.metadata.get("weights_sha256") != sha256:
                raise SpeechFTError(
                    f"{file.path} was collected with other weights than those merged",
                    "give the files in the order of the models, or collect again with --corpus",
                )

    def close(self) -> None:
        for file in self._files:
            file.close()


def needed(method: Method, statistics: Sequence[str | Path] | None, corpus: str | None) -> None:
    """Whether what was given is what the method needs.

    Raises:
        UsageError: it is not.
    """
    given = bool(statistics) + bool(corpus)
    if method.statistics and given != 1:
        raise UsageError(f"{method.name} weighs models by statistics of speech", "give either --corpus or --statistics")
    if not method.statistics and given:
        raise UsageError(f"{method.name} needs no statistics", "leave --corpus and --statistics out")
