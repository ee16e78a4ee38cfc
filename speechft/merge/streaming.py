"""The one pass over the parents: read, hash, measure, merge and write, a tensor or a piece of one at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speechft.checkpoints.hashing import WeightsHash
from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import SafetensorsWriter, TensorInfo
from speechft.errors import SpeechFTError
from speechft.merge import weight_norm
from speechft.merge.method import Method
from speechft.merge.methods._tensors import tensor_seed
from speechft.merge.norms import UpdateNorms, square_sum
from speechft.merge.parents import Parents
from speechft.merge.statistics import Statistics

PIECE = 1 << 18
"""Elements of a piece: a MiB in float32, so that what is worked on stays near the processor."""
_KEPT = 16 << 20
"""Bytes that are asked for once and given back at once: from then on glibc keeps freed memory of up to twice as much,
rather than have the system clear new pages for every piece, which takes longer than all arithmetic."""


@dataclass
class Output:
    """One merged model in the making.

    Attributes:
        alphas: canonical name -> α.
        writer: of its weights.
        prefix: how the file's names begin, before the canonical ones.
        applied: norms of θ̂ − θ0.
        sha256: of its weights, at the end.
    """

    alphas: dict[str, float]
    writer: SafetensorsWriter
    applied: UpdateNorms
    prefix: str = ""
    sha256: str = ""


@dataclass
class Seen:
    """What the pass learned of the parents: hashes of their weights (θ0's first), norms of mean τ, and of every τ_k."""

    sha256: list[str]
    update: UpdateNorms
    updates: list[UpdateNorms]


@dataclass(frozen=True)
class Recipe:
    """How tensors are merged: the method, its parameters, its statistics, how weight norm is taken, and where a method
    that trims whole models cuts."""

    method: Method
    parameters: dict[str, Any]
    statistics: Statistics | None = None
    effective: bool = False
    thresholds: Sequence[float] | None = None

    def merge(self, name: str, base: Tensor, tuned: Sequence[Tensor], alpha: float,
              statistics: Sequence[Tensor | None] | None) -> Tensor:  # fmt: skip
        """One tensor, or a piece of one where the method is elementwise."""
        values = dict(self.parameters)
        if statistics is not None:
            values["statistics"] = statistics
        if self.thresholds is not None:
            values["thresholds"] = self.thresholds
        if self.method.draws:
            values["seed"] = tensor_seed(values["seed"], name)
        return self.method.function(base, tuned, alpha, **values)


def infos_of(base: FolderReader, tuned: Sequence[FolderReader]) -> dict[str, TensorInfo]:
    """Name -> type and shape of the result: the type that holds every parent's values; θ0's where it is no number with
    a fraction."""
    found = {}
    for name in base.names():
        info = base.info(name)
        kind = info.dtype
        if kind.is_floating_point:
            for reader in tuned:
                kind = _wider(kind, reader.info(name).dtype)
        found[name] = TensorInfo(kind, info.shape)
    return found


def _wider(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    if one == other or not other.is_floating_point:
        return one
    if min(one.itemsize, other.itemsize) < 2:  # torch has no rule for eight bits
        return max(one, other, torch.float16, key=lambda kind: kind.itemsize)
    return torch.promote_types(one, other)


def stream(parents: Parents, infos: dict[str, TensorInfo], recipe: Recipe, outputs: Sequence[Output]) -> Seen:
    """Merge everything in one pass.

    Args:
        parents: θ0 and θ'_k.
        infos: see `infos_of`; the order of the outputs' files.
        recipe: how.
        outputs: their `applied` and `sha256` are filled in, their weights written.

    Raises:
        SpeechFTError: weights that are not finite, of a parent or of a result.
    """
    readers = [parents.base, *parents.tuned]
    parts = parents.parts
    seen = Seen([], UpdateNorms(parts), [UpdateNorms(parts) for _ in parents.tuned])
    coupled = weight_norm.pairs(infos) if recipe.effective else {}
    done_with = set(coupled.values())
    with contextlib.ExitStack() as opened:
        torch.empty(_KEPT, dtype=torch.uint8)
        if recipe.method.elementwise:
            opened.enter_context(_one_thread())
        parent_hashes, hashes = (
            [WeightsHash(opened.enter_context(ThreadPoolExecutor(1, "speechft-hash"))) for _ in some]
            for some in (readers, outputs)
        )

        def take(name: str, start: int = 0, stop: int | None = None) -> tuple[list[Tensor], float]:
            """The parents' elements, hashed and measured on the way, and the sum of the squares of θ0's."""
            pieces = []
            for reader, digest in zip(readers, parent_hashes, strict=True):
                if start == 0:
                    digest.begin(name, reader.info(name).dtype, reader.info(name).shape)
                pieces.append(reader.read(name, start, stop))
                digest.update(pieces[-1])
            if not infos[name].dtype.is_floating_point:
                return pieces, 0.0
            size = square_sum(_number(pieces[0]))
            _measure(name, pieces, size, seen, parents.paths)
            return pieces, size

        def put(name: str, merged: Sequence[Tensor], origin: Tensor, size: float, start: int = 0) -> None:
            """The outputs' elements."""
            first = _number(origin)
            for output, digest, tensor in zip(outputs, hashes, merged, strict=True):
                result = tensor.to(infos[name].dtype)
                if start == 0:
                    digest.begin(name, infos[name].dtype, infos[name].shape)
                digest.update(result)
                moved = 0.0
                if infos[name].dtype.is_floating_point:
                    moved = output.applied.add(name, size, result.to(first.dtype) - first)
                if not math.isfinite(moved):
                    raise SpeechFTError(
                        f"{name} would not be finite in the merged model",
                        "choose an alpha between 0 and 1, or other parameters",
                    )
                output.writer.write_piece(output.prefix + name, result.reshape(-1))

        for name, info in infos.items():
            if name in coupled:
                partner = coupled[name]
                (lengths, size), (directions, other) = take(name), take(partner)
                merged = [_merge_effective(name, lengths, directions, output, recipe) for output in outputs]
                put(name, [pair[0] for pair in merged], lengths[0], size)
                put(partner, [pair[1] for pair in merged], directions[0], other)
            elif name not in done_with:
                for start, stop in _pieces(info, recipe.method):
                    (origin, *others), size = take(name, start, stop)
                    put(name, _merge(name, info, origin, others, start, stop, outputs, recipe), origin, size, start)
        seen.sha256 = [digest.hexdigest() for digest in parent_hashes]
        for output, digest in zip(outputs, hashes, strict=True):
            output.sha256 = digest.hexdigest()
    return seen


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Torch computes in the caller's thread: pieces are small, and the other processors hash meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _merge(name: str, info: TensorInfo, origin: Tensor, others: Sequence[Tensor], start: int, stop: int | None,
           outputs: Sequence[Output], recipe: Recipe) -> list[Tensor]:  # fmt: skip
    if not info.dtype.is_floating_point:
        return [origin] * len(outputs)
    statistics = None
    if recipe.statistics is not None:
        statistics = recipe.statistics.read(name, info.shape, start, stop)
    return [
        recipe.merge(name, origin, others, output.alphas[name], statistics) if output.alphas[name] else origin
        for output in outputs
    ]


def _merge_effective(
    name: str, lengths: Sequence[Tensor], directions: Sequence[Tensor], output: Output, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """g and v of the merged w. Where w is a parent's, its own g and v, bit for bit."""
    alpha = output.alphas[name]
    weights = [weight_norm.effective(g, v) for g, v in zip(lengths, directions, strict=True)]
    merged = recipe.merge(name, weights[0], weights[1:], alpha, None) if alpha else weights[0]
    for weight, length, direction in zip(weights, lengths, directions, strict=True):
        if torch.equal(merged, weight):
            return length, direction
    return weight_norm.stored(merged, lengths[0], directions[0])


def _pieces(info: TensorInfo, method: Method) -> Iterator[tuple[int, int | None]]:
    if info.dtype.is_floating_point and not method.elementwise:
        yield 0, None
        return
    for start in range(0, max(info.size, 1), PIECE):
        yield start, min(start + PIECE, info.size)


def _measure(name: str, pieces: Sequence[Tensor], size: float, seen: Seen, paths: Sequence[str]) -> None:
    origin, *others = (_number(piece) for piece in pieces)
    mean = None
    squares = [size]
    for other, norms in zip(others, seen.updates, strict=True):
        update = other - origin
        squares.append(norms.add(name, size, update))
        mean = update if mean is None else mean + update
    for path, square in zip(paths, squares, strict=True):
        if not math.isfinite(square):
            raise SpeechFTError(
                f"{name} of {path} is not finite (NaN or infinite)", "its weights are broken: train or copy it again"
            )
    if len(others) > 1 and mean is not None:
        seen.update.add(name, size, mean / len(others))
    else:
        seen.update = seen.updates[0]


def _number(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
