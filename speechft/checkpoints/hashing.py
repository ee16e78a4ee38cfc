"""One hash for a set of weights, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names.

    Floating-point tensors count as float32, so a file in half precision and the model loaded from it agree.
    """
    return streamed_sha256(state.keys(), state.__getitem__)


def streamed_sha256(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """The same hash with one tensor in memory at a time; `read` fetches a tensor by its name."""
    digest = WeightsHash()
    for name in sorted(names):
        tensor = read(name)
        digest.begin(name, tensor.dtype, tuple(tensor.shape))
        digest.update(tensor)
    return digest.hexdigest()


class WeightsHash:
    """The hash in the making: announce every tensor in the order of their names, then give its elements, in pieces.

    Args:
        beside: a pool whose threads do the work while the caller goes on; None works at once.
    """

    def __init__(self, beside: ThreadPoolExecutor | None = None) -> None:
        self._digest = hashlib.sha256()
        self._beside = beside
        self._pending: Future[None] | None = None

    def begin(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self._wait()
        kind = torch.float32 if dtype.is_floating_point else dtype
        self._digest.update(f"{name}|{kind}|{shape}|".encode())

    def update(self, piece: Tensor) -> None:
        """The next elements of the present tensor, in any shape; they must not change until the next call."""
        self._wait()
        if self._beside is None:
            self._take(piece)
        else:
            self._pending = self._beside.submit(self._take, piece)

    def _take(self, piece: Tensor) -> None:
        piece = piece.detach().cpu()
        piece = (piece.float() if piece.is_floating_point() else piece).contiguous().reshape(-1)
        if piece.numel():
            self._digest.update(piece.view(torch.uint8).numpy().data)

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def hexdigest(self) -> str:
        self._wait()
        return self._digest.hexdigest()
