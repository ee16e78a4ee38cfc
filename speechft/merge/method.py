"""What a merge method is: a pure function on tensors, its parameters, its formula and its paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from speechft.errors import UsageError

MergeFunction = Callable[..., Tensor]
"""`(base, tuned, alpha, **parameters) -> merged`: θ0, the θ'_k, the weight of the fine-tuned side; all tensors of one
shape, any floating-point type. α = 0 gives θ0 bit for bit, and so does a θ' that equals θ0. The result is float32, or
float64 where a parent is. A method with `statistics` gets one tensor a parent by that name, θ0's first, or None where
there is none for this tensor; a method that draws gets a `seed` that is the tensor's own; one that `trims` gets
`thresholds` with the parameter `scope` at `model`."""


@dataclass(frozen=True)
class Parameter:
    """A number (or several) that a user may set.

    Attributes:
        name: as in the function's signature.
        kind: `float`, `int`, `bool`, `word`: one of `words`, or `floats`: one for each fine-tuned model.
        default: None only for `floats`: all equal.
        low, high: the range, both ends included unless `open_low`.
        meaning: a few words for the table.
    """

    name: str
    kind: str
    default: float | int | bool | str | None
    meaning: str
    low: float = 0.0
    high: float = 1.0
    open_low: bool = False
    words: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The values it takes, in words."""
        if self.kind == "bool":
            return "true or false"
        if self.kind == "word":
            return " or ".join(self.words)
        low = "above" if self.open_low else "at least"
        number = "a whole number" if self.kind == "int" else "a number" if self.kind == "float" else "numbers"
        if math.isinf(self.low):
            text = number
        elif math.isinf(self.high):
            text = f"{number} {low} {self.low:g}"
        else:
            text = f"{number} {'above' if self.open_low else 'from'} {self.low:g} to {self.high:g}"
        return f"{text}, one for each fine-tuned model" if self.kind == "floats" else text

    def read(self, value: Any) -> Any:
        """A value from Python or from the command line.

        Raises:
            UsageError: not of this kind, or out of range.
        """
        wrong = UsageError(f"{self.name} is {value!r}", f"give {self.range}")
        if self.kind == "floats":
            words = value.split(",") if isinstance(value, str) else value
            if not isinstance(words, Sequence):
                raise wrong
            return [self._number(word, wrong) for word in words]
        if self.kind == "word":
            if value not in self.words:
                raise wrong
            return value
        return self._number(value, wrong)

    def _number(self, value: Any, wrong: UsageError) -> Any:
        if self.kind == "bool":
            known = {"true": True, "false": False, True: True, False: False}
            key = value.lower() if isinstance(value, str) else value
            if not isinstance(key, (str, bool)) or key not in known:
                raise wrong
            return known[key]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise wrong
        try:
            number = int(value) if self.kind == "int" and not isinstance(value, float) else float(value)
        except ValueError:
            raise wrong from None
        if self.kind == "int" and not isinstance(number, int):
            raise wrong
        if not math.isfinite(number) or not self.low <= number <= self.high or (self.open_low and number == self.low):
            raise wrong
        return number


WEIGHTS = Parameter("weights", "floats", None, "weight of each task vector; all 1 unless given", -math.inf, math.inf)
SEED = Parameter("seed", "int", 0, "fixes what is drawn", 0, math.inf)


@dataclass(frozen=True)
class Method:
    """A merge method, as the registry and a model's card have it.

    Attributes:
        name: what `--method` takes.
        function: see `MergeFunction`.
        formula: θ̂ in one line.
        paper: where it comes from.
        parameters: what can be set, in the order of the table.
        alpha: the α that is taken when none is given.
        elementwise: an element of the result depends on the same element of the parents alone, so that a tensor may be
            worked on in pieces.
        least, most: how many fine-tuned models it takes.
        statistics: the kind of statistics it needs of every parent.
        draws: whether it draws at random.
        trims: whether it keeps the largest elements of an update, `density` of each tensor's, or, with the parameter
            `scope` at `model`, of the whole: those of a magnitude of at least `thresholds[k]` (`merge/thresholds.py`).
    """

    name: str
    function: MergeFunction
    formula: str
    paper: str
    parameters: tuple[Parameter, ...] = ()
    alpha: float = 0.25
    elementwise: bool = False
    least: int = 1
    most: int | None = None
    statistics: str | None = None
    draws: bool = False
    trims: bool = False

    def read(self, given: Mapping[str, Any], models: int) -> dict[str, Any]:
        """All parameters with their values, defaults filled in.

        Args:
            given: names -> values, or their text.
            models: how many fine-tuned models there are.

        Raises:
            UsageError: an unknown parameter, an impossible value, or a number of models that the method does not take.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                listed = ", ".join(known) or f"{self.name} has none"
                raise UsageError(f"{self.name} has no parameter {name!r}", f"known: {listed}")
        if models < self.least:
            raise UsageError(f"{self.name} takes at least {self.least} fine-tuned models", "linear takes one")
        if self.most is not None and models > self.most:
            count = "one fine-tuned model" if self.most == 1 else f"{self.most} fine-tuned models"
            raise UsageError(f"{self.name} takes {count}", "linear takes several")
        values: dict[str, Any] = {}
        for name, parameter in known.items():
            values[name] = parameter.read(given[name]) if name in given else parameter.default
            if parameter.kind == "floats" and values[name] is not None and len(values[name]) != models:
                raise UsageError(
                    f"{name} has {len(values[name])} numbers for {models} fine-tuned models", f"give {models}"
                )
        return values
