"""The state of an interrupted head training: tensors and plain values, read back without unpickling code."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechft.files import save_torch, whole_file


def random_state() -> dict[str, Any]:
    """The generators of Python, NumPy and torch (and of the GPUs) as plain values and tensors."""
    kind, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": [kind, list(internal), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since `random_state`."""
    kind, internal, gauss = state["python"]
    random.setstate((kind, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def on_cpu(tensors: dict[str, Any]) -> dict[str, Any]:
    """A copy that later steps do not change."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def plain(value: Any) -> Any:
    """A copy with NumPy's scalars, which some experts keep in their records, as Python's: they can be read back."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else copy.deepcopy(value)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write whole.

    Raises:
        SpeechFTError: the disk is full.
    """
    with whole_file(path) as temporary:
        save_torch(content, temporary)


def read(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The content on `device`, or None if there is none or it is damaged (the training then begins anew)."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # a damaged file raises pickle, zip and runtime errors alike; none of them is worth a stop
        return None
    return content if isinstance(content, dict) else None
