"""The `trainer` group: read, and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.errors import UsageError
from speechft.train.trackers import check_trackers

_COUNTS = ("steps", "accumulate", "log_every", "eval_every", "checkpoint_every", "keep", "patience_nan")
_NUMBERS = ("lr", "warmup", "hold", "eps", "weight_decay", "clip", "eval_seconds", "keep_cnn_gb")
_SWITCHES = ("gradient_checkpointing", "keep_best")
_OTHERS = ("optimizer", "betas", "precision", "device", "threads", "ema", "patience", "finetuned", "keep_cnn",
           "trackers")  # fmt: skip
_KNOWN = sorted((*_COUNTS, *_NUMBERS, *_SWITCHES, *_OTHERS))


def read_trainer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The group as given, with `precision` as `no`, `bf16` or `fp16`.

    Raises:
        UsageError: an unknown setting, a missing one, or an impossible value.
        MissingExtraError: a tracker that is not installed.
    """
    trainer = dict(settings)
    lacking = sorted(set(_KNOWN) - trainer.keys())
    if lacking:  # a configuration from Python, or one that an earlier version stored
        raise UsageError(f"the trainer lacks {', '.join(lacking)}", "configs/trainer/default.yaml has them all")
    for key in _COUNTS:
        if isinstance(trainer[key], bool) or not isinstance(trainer[key], int) or trainer[key] < 1:
            raise UsageError(f"trainer.{key} is {trainer[key]!r}", "give a whole number of at least 1")
    for key in _NUMBERS:
        if isinstance(trainer[key], bool) or not isinstance(trainer[key], (int, float)):
            raise UsageError(f"trainer.{key} is {trainer[key]!r}", "give a number, such as 1.0e-4")
        if trainer[key] < 0 or (key in ("lr", "clip", "eval_seconds") and trainer[key] == 0):
            raise UsageError(f"trainer.{key} is {trainer[key]}", "give a positive number")
    for key in _SWITCHES:
        if not isinstance(trainer[key], bool):
            raise UsageError(f"trainer.{key} is {trainer[key]!r}", "true or false")
    betas = trainer["betas"]
    if len(betas) != 2 or not all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas):
        raise UsageError(f"trainer.betas is {list(betas)}", "give two numbers from 0 to below 1")
    # YAML reads a bare `no` as false.
    trainer["precision"] = "no" if trainer["precision"] in (False, None, "no", "fp32") else str(trainer["precision"])
    _one_of(trainer, "precision", ("no", "bf16", "fp16"))
    unknown = sorted(trainer.keys() - set(_KNOWN))
    if unknown:
        raise UsageError(f"unknown setting of the trainer: {', '.join(unknown)}", f"known: {', '.join(_KNOWN)}")
    if trainer["device"] not in ("auto", "cpu"):
        raise UsageError(
            f"trainer.device is {trainer['device']!r}", "known: auto, cpu; choose a GPU by CUDA_VISIBLE_DEVICES"
        )
    ema, patience = trainer["ema"], trainer["patience"]
    if ema is not None and (isinstance(ema, bool) or not isinstance(ema, (int, float)) or not 0 < ema < 1):
        raise UsageError(f"trainer.ema is {ema!r}", "it is a decay between 0 and 1, such as 0.999, or null")
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        raise UsageError(f"trainer.patience is {patience!r}", "give a whole number of evaluations, or null")
    _one_of(trainer, "finetuned", ("last", "best"))
    _one_of(trainer, "keep_cnn", (None, "memory", "disk"))
    if trainer["finetuned"] == "best" and not trainer["keep_best"]:
        raise UsageError("trainer.finetuned=best with trainer.keep_best=false", "keep the best, or take the last")
    if not isinstance(trainer["trackers"], list):
        raise UsageError(f"trainer.trackers is {trainer['trackers']!r}", "give a list: trainer.trackers=[tensorboard]")
    check_trackers(trainer["trackers"])
    return trainer


def read_seed(value: Any) -> int:
    """The seed of a run.

    Raises:
        UsageError: no whole number, or one below 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"seed is {value!r}", "give a whole number of at least 0")
    return value


def read_head_lr(task: Mapping[str, Any]) -> float | None:
    """The head's peak rate; None is the upstream's.

    Raises:
        UsageError: no positive number.
    """
    value = task.get("head_lr")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"task.head_lr is {value!r}", "give a positive number, such as 1.0e-3, or null")
    return float(value)


def check_dev(trainer: Mapping[str, Any], dev: Any) -> None:
    """What the dev set is needed for, when there is none.

    Raises:
        UsageError: so.
    """
    wanted = {"trainer.finetuned=best": trainer["finetuned"] == "best", "trainer.patience": bool(trainer["patience"])}
    for name, asked in wanted.items():
        if asked and not dev:
            raise UsageError(f"{name} needs evaluations, and there is no dev set", "give data.dev, or leave it out")


def _one_of(trainer: Mapping[str, Any], key: str, known: tuple[Any, ...]) -> None:
    if trainer[key] not in known:
        names = ", ".join("null" if name is None else name for name in known)
        raise UsageError(f"trainer.{key} is {trainer[key]!r}", f"known: {names}")
