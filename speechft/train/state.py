"""Checkpoints of a run: everything a resume needs, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechft.checkpoints.folder import LEARNER
from speechft.checkpoints.weight_files import read_tensors
from speechft.errors import SpeechFTError, UsageError
from speechft.files import is_partial, partial_name, read_json, remove_partials, save_torch, whole_folder
from speechft.train.average import Average

_AVERAGE, _OPTIMIZER, _STATE = "average.safetensors", "optimizer.pt", "state.json"

_REMOVE = "remove it to go on from the one before"
_OTHER_MODEL = ("Error(s) in loading state_dict", "parameter group", "size mismatch")
"""In torch's words, where a whole checkpoint has other tensors than the model, or other groups than the optimizer."""


def save(
    folder: Path, step: int, learner: nn.Module, average: Average | None, optimizer: dict[str, Any],
    state: dict[str, Any], keep: int, best: int | None = None,
) -> Path:  # fmt: skip
    """Write `step-N/` whole and remove all but the newest `keep` and the best.

    Args:
        folder: the run's `checkpoints/`.
        step: how many optimiser steps are done.
        learner: upstream and head.
        average: of their weights, where there is one.
        optimizer: state dictionaries of the optimiser (and the gradient scaler, under float16).
        state: readable: step, place in the data, configuration hash, vocabularies.
        keep: at least 1.
        best: the step whose checkpoint stays, however old.
    """
    from safetensors.torch import save_file

    target = folder / f"step-{step}"
    with whole_folder(target) as temporary:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learner.state_dict().items()}
        save_file(tensors, temporary / LEARNER)
        if average is not None:
            save_file({name: tensor.cpu() for name, tensor in average.tensors().items()}, temporary / _AVERAGE)
            state = {**state, "averaged": average.updates}
        save_torch(optimizer, temporary / _OPTIMIZER)
        (temporary / _STATE).write_text(json.dumps({"step": step, **state}, indent=2) + "\n", encoding="utf-8")
    for old in checkpoints(folder)[:-keep]:
        if old != of_step(folder, best):
            # Renamed first: a kill in the middle of removing must not leave half a checkpoint under a whole one's name.
            going = old.with_name(partial_name(old))
            old.rename(going)
            shutil.rmtree(going, ignore_errors=True)
    return target


def of_step(folder: Path, step: int | None) -> Path:
    """Where the checkpoint of a step is, if it is."""
    return folder / f"step-{step}"


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and not is_partial(path)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest(folder: Path, clear: bool = True) -> Path | None:
    """The newest complete checkpoint; leftovers of interrupted writes are cleared, unless `clear` is false."""
    if not folder.is_dir():
        return None
    if clear:
        remove_partials(folder)
    found = checkpoints(folder)
    return found[-1] if found else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The readable part alone.

    Raises:
        SpeechFTError: it is damaged.
    """
    return dict(read_json(checkpoint / _STATE))


def load(
    checkpoint: Path, learner: nn.Module, average: Average | None, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Fill learner, average and optimiser; returns the readable state.

    Raises:
        SpeechFTError: the checkpoint is damaged, or of another model.
    """
    state = read_state(checkpoint)
    load_weights(checkpoint, learner, average)
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    try:
        saved = torch.load(checkpoint / _OPTIMIZER, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(saved["optimizer"])
        # It brings the old options too; where the configuration was changed on purpose, the new ones count.
        for group, own in zip(optimizer.param_groups, options, strict=True):
            group.update(own)
    except Exception as error:  # damaged archives raise many kinds
        raise _misfit(checkpoint, error) from error
    return {**state, "scaler": saved.get("scaler")}


def check_data(
    saved: Mapping[str, Any], labels: Mapping[str, Any], corpora: Mapping[str, Mapping[str, Any]], run: Path
) -> None:
    """A run goes on with the labels it began with, and with the data in the order it was in; the dev set's too, or
    the best score so far would be of another one.

    Args:
        saved: what `load` gave.
        labels: `Task.settings` now.
        corpora: marks of the training and the dev set now (`check.corpus_mark`).

    Raises:
        UsageError: they have changed.
    """
    mend = "bring them back, choose another --out, or go on anyway with allow_changed_config=true"
    if saved["task"] != json.loads(json.dumps(labels)):
        raise UsageError(f"the labels of {run} have changed since it was started", mend)
    before = saved.get("corpora", {})
    for name, now in corpora.items():
        then = before.get(name, now)
        if then != now:
            counts = f"{then['utterances']} utterances then, {now['utterances']} now"
            same = f"{counts.partition(' then')[0]}, but others, or in another order, or with other labels"
            told = same if then["utterances"] == now["utterances"] else counts
            what = "training" if name == "train" else name
            raise UsageError(f"the {what} data of {run} have changed since it was started ({told})", mend)


def load_weights(checkpoint: Path, learner: nn.Module, average: Average | None) -> None:
    """Fill learner and average alone.

    Raises:
        SpeechFTError: the checkpoint is damaged, or of another model.
    """
    try:
        tensors, state = read_tensors(checkpoint / LEARNER), read_json(checkpoint / _STATE)
        averaged = read_tensors(checkpoint / _AVERAGE) if average is not None and "averaged" in state else None
    except SpeechFTError as error:
        raise SpeechFTError(error.what, _REMOVE) from error
    try:
        learner.load_state_dict(tensors, strict=True)
        if average is not None:  # where the run had none so far (a configuration changed on purpose), it begins here
            average.restore(averaged or dict(learner.named_parameters()), int(state.get("averaged", 0)))
    except Exception as error:
        raise _misfit(checkpoint, error) from error


def _misfit(checkpoint: Path, error: Exception) -> SpeechFTError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Error(s) in loading")]  # torch's header says nothing
    reason = (told or lines or [type(error).__name__])[0][:200]
    if any(sign in str(error) for sign in _OTHER_MODEL):
        mend = "such a change of the configuration needs a run of its own: choose another --out"
        return SpeechFTError(f"checkpoint {checkpoint} is of another model or optimizer ({reason})", mend)
    return SpeechFTError(f"checkpoint {checkpoint} does not fit this run ({reason})", _REMOVE)


def load_head(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The head's tensors, named as in the task, and what the task said about them (`Task.settings`). Averaged ones,
    where there is an average: it is what `finetuned/` is made of.

    Raises:
        SpeechFTError: the checkpoint is damaged.
    """
    prefix = "task."
    tensors, state = read_tensors(checkpoint / LEARNER), read_json(checkpoint / _STATE)
    if "averaged" in state:
        tensors |= read_tensors(checkpoint / _AVERAGE)
    head = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return head, dict(state["task"])
