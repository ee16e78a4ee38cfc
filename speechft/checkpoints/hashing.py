"""One hash for a set of weights, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

_BEHIND = 4 << 20
"""Bytes that a hash made beside other work may be behind, unless one piece has more."""


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
        beside: a pool of one thread, this hash's own, that does the work while the caller goes on; None works at once.
    """

    def __init__(self, beside: ThreadPoolExecutor | None = None) -> None:
        self._digest = hashlib.sha256()
        self._beside = beside
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._behind = 0

    def begin(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        kind = torch.float32 if dtype.is_floating_point else dtype
        self._do(self._digest.update, f"{name}|{kind}|{shape}|".encode(), 0)

    def update(self, piece: Tensor) -> None:
        """The next elements of the present tensor, in any shape; they must not change any more."""
        self._do(self._take, piece, piece.nbytes)

    def _take(self, piece: Tensor) -> None:
        piece = piece.detach().cpu()
        piece = (piece.float() if piece.is_floating_point() else piece).contiguous().reshape(-1)
        if piece.numel():
            self._digest.update(piece.view(torch.uint8).numpy().data)

    def _do(self, work: Callable[[Any], None], given: Any, size: int) -> None:
        if self._beside is None:
            work(given)
            return
        self._wait(_BEHIND - size)
        self._pending.append((self._beside.submit(work, given), size))
        self._behind += size

    def _wait(self, left: int) -> None:
        """Until no more bytes are left to do."""
        while self._pending and self._behind > left:
            done, size = self._pending.popleft()
            done.result()
            self._behind -= size

    def hexdigest(self) -> str:
        self._wait(-1)
        return self._digest.hexdigest()
