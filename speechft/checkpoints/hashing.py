"""One hash for a set of weights, whatever file they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names.

    Floating-point tensors count as float32, so a file in half precision and the model loaded from it agree.
    """
    return streamed_sha256(state.keys(), state.__getitem__)


def streamed_sha256(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """The same hash with one tensor in memory at a time; `read` fetches a tensor by its name."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = read(name).detach().cpu()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
