"""Checkpoints of a run: everything a resume needs, complete or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechft.checkpoints.folder import LEARNER, read_tensors
from speechft.errors import SpeechFTError
from speechft.files import is_partial, read_json, remove_partials, whole_folder

_OPTIMIZER, _STATE = "optimizer.pt", "state.json"


def save(
    folder: Path, step: int, learner: nn.Module, optimizer: dict[str, Any], state: dict[str, Any], keep: int
) -> Path:
    """Write `step-N/` whole and remove all but the newest `keep`.

    Args:
        folder: the run's `checkpoints/`.
        step: how many optimiser steps are done.
        learner: upstream and head.
        optimizer: state dictionaries of the optimiser (and the gradient scaler, under float16).
        state: readable: step, place in the data, configuration hash, vocabularies.
        keep: at least 1.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step}"
    with whole_folder(target) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.state_dict().items()}
        save_file(tensors, temporary / LEARNER)
        torch.save(optimizer, temporary / _OPTIMIZER)
        (temporary / _STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and not is_partial(path)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint; leftovers of interrupted writes are cleared."""
    if not folder.is_dir():
        return None
    remove_partials(folder)
    found = checkpoints(folder)
    return found[-1] if found else None


def load(checkpoint: Path, learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Fill learner and optimiser; returns the readable state.

    Raises:
        SpeechFTError: the checkpoint is damaged, or of another model.
    """
    state = read_json(checkpoint / _STATE)
    tensors = read_tensors(checkpoint / LEARNER)
    try:
        learner.load_state_dict(tensors, strict=True)
        saved = torch.load(checkpoint / _OPTIMIZER, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(saved["optimizer"])
    except Exception as error:  # damaged archives raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechFTError(
            f"checkpoint {checkpoint} does not fit this run ({reason})", "remove it to go on from the one before"
        ) from error
    return {**state, "scaler": saved.get("scaler")}


def load_head(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The head's tensors, named as in the task, and what the task said about them (`Task.settings`).

    Raises:
        SpeechFTError: the checkpoint is damaged.
    """
    prefix = "task."
    tensors = read_tensors(checkpoint / LEARNER)
    head = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return head, dict(read_json(checkpoint / _STATE)["task"])
