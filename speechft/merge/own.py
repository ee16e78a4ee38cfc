"""A merge method of the user's own: a function in a file, its parameters read from its signature."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.errors import SpeechFTError, UsageError
from speechft.merge.method import SEED, WEIGHTS, Method, Parameter
from speechft.own import load_own

_MADE = "a function (base, tuned, alpha, **parameters), or a speechft.merge.method.Method"
_KINDS = {bool: "bool", int: "int", float: "float"}


def own_method(where: str) -> Method:
    """The method that `path/to/file.py:name` or `package.module:name` names.

    A function's keyword-only arguments are its parameters, each with a default that is a number or true or false;
    `weights=None` gets one for each fine-tuned model, and `seed=0` a seed of every tensor's own. The first line of its
    docstring is its formula. A `Method` says all of that itself, with ranges.

    Raises:
        UsageError: no such function, or one with other arguments.
    """
    found = load_own(where, "--method", "method", _MADE, _fits)
    source = where.rpartition(":")[0]
    method = found if isinstance(found, Method) else _described(found, where)
    file = Path(inspect.getsourcefile(inspect.unwrap(method.function)) or source)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    known = {**vars(method), "function": _guarded(method.function, where),
             "paper": f"{method.paper or 'a method of its own'}; {file.name}, sha256 {sha256}"}  # fmt: skip
    return Method(**known)


def _fits(value: Any) -> bool:
    if isinstance(value, Method):
        return True
    return inspect.isfunction(value) and len(_positional(value)) == 3


def _positional(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind in kinds]


def _described(function: Callable[..., Tensor], where: str) -> Method:
    parameters = []
    for name, one in list(inspect.signature(function).parameters.items())[3:]:
        if one.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise UsageError(
                f"--method {where}: {one} is no parameter that can be set", "write them after a *, one by one"
            )
        if (name, one.default) in (("weights", None), ("seed", 0)):
            parameters.append(WEIGHTS if name == "weights" else SEED)
        elif type(one.default) in _KINDS:
            kind = _KINDS[type(one.default)]
            parameters.append(Parameter(name, kind, one.default, f"of {function.__name__}", -math.inf, math.inf))
        else:
            raise UsageError(
                f"--method {where}: {name} has no default that is a number", f"write {name}=0.5, for instance"
            )
    first = (inspect.getdoc(function) or function.__name__).splitlines()[0].rstrip(".")
    return Method(function.__name__, function, first, "", tuple(parameters), draws=SEED in parameters)


def _guarded(function: Callable[..., Tensor], where: str) -> Callable[..., Tensor]:
    """The function, with a look at what it gives."""

    @functools.wraps(function)
    def guarded(base: Tensor, tuned: Sequence[Tensor], alpha: float, **parameters: Any) -> Tensor:
        try:
            merged = function(base, tuned, alpha, **parameters)
        except SpeechFTError:
            raise
        except Exception as error:  # the user's code may raise anything
            what = f"{where} fails on a tensor of shape {list(base.shape)} ({type(error).__name__}: {error})"
            raise SpeechFTError(what, "run again with --debug to see where") from error
        if not isinstance(merged, Tensor) or merged.shape != base.shape or not merged.is_floating_point():
            given = f"{list(merged.shape)} {merged.dtype}" if isinstance(merged, Tensor) else type(merged).__name__
            raise SpeechFTError(f"{where} gives {given} for a tensor of shape {list(base.shape)}",
                                "a merged tensor has the shape of its parents, in floating point")  # fmt: skip
        if not bool(torch.isfinite(merged).all()) and bool(torch.isfinite(base).all()):
            raise SpeechFTError(f"{where} gives numbers that are not finite for a tensor of shape {list(base.shape)}",
                                "mind tensors of zeros, and those that fine-tuning left alone")  # fmt: skip
        return merged

    return guarded
