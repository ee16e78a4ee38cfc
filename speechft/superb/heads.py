"""The heads of one evaluation: s3prl's layer weights and expert once per learning rate, equal at the start."""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from speechft.errors import SpeechFTError
from speechft.superb import state as saved

_WITH_FOUND_INF = ("Adam", "AdamW")  # the optimizers of torch whose `step` heeds `found_inf`


class Head:
    """What one learning rate trains.

    Args:
        lr: the rate.
        featurizer, expert: s3prl's modules, this head's own.
        optimizer: s3prl's configuration of it; its `lr` is replaced.
        steps: of the whole training.

    Attributes:
        best: state of the modules at the best dev score; empty if no dev score was ever a best one.
        dev: metrics of the dev set there, with `step`.
        last: the same at the last evaluation, whose state is the present one; what there is to say of a head without
            a best state.
        stopped: why this rate was given up (its loss is NaN), or None.
        records: of the training set since the last logging step, where the expert's own `forward` is called.
        losses: sum of the losses since the last logging step, on the device; it is NaN if one of them is.
        fused: whether the optimizer runs as one kernel, to which "no step this time" can be told on the device.
    """

    def __init__(self, lr: float, featurizer: Any, expert: Any, optimizer: Mapping[str, Any], steps: int) -> None:
        from s3prl.optimizers import get_optimizer

        self.lr, self.featurizer, self.expert = lr, featurizer, expert
        self.modules: list[nn.Module] = [featurizer, expert]
        self.parameters = [parameter for module in self.modules for parameter in module.parameters()]
        # one kernel for all parameters: on a CPU, too, three times as fast, and equal up to rounding
        self.fused = optimizer.get("torch_optim_name") in _WITH_FOUND_INF
        fused = {"fused": True} if self.fused else {}
        self.optimizer = get_optimizer(self.modules, steps, {**optimizer, **fused, "lr": lr})
        self.best: dict[str, Any] = {}
        self.dev: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.stopped: str | None = None
        self.records: dict[str, list[Any]] = defaultdict(list)
        self.losses: torch.Tensor | None = None

    def heard(self, loss: torch.Tensor) -> None:
        """A training loss, to be looked at when the next logging step comes."""
        loss = loss.detach()
        self.losses = loss if self.losses is None else self.losses + loss

    def mode(self, train: bool) -> None:
        for module in self.modules:
            module.train(train)

    def keep(self, dev: Mapping[str, float], step: int) -> None:
        """The present state is the best one."""
        self.best = {name: saved.on_cpu(getattr(self, name).state_dict()) for name in ("featurizer", "expert")}
        self.dev = {**dev, "step": step}

    @property
    def score(self) -> dict[str, float]:
        """Metrics of the dev set in the state that is tested: the best one, or the last."""
        return self.dev if self.best else self.last

    def to_best(self) -> None:
        for name, state in self.best.items():
            getattr(self, name).load_state_dict(state)

    def state(self) -> dict[str, Any]:
        """Everything, for `saved.write`."""
        return {
            "featurizer": self.featurizer.state_dict(), "expert": self.expert.state_dict(),
            "optimizer": self.optimizer.state_dict(), "best": self.best, "dev": self.dev, "last": self.last,
            "stopped": self.stopped,
            "records": saved.plain(dict(self.records)), "losses": self.losses,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        for name in ("featurizer", "expert", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.best, self.dev, self.stopped = state["best"], state["dev"], state["stopped"]
        self.last = state.get("last", {})
        self.records, self.losses = defaultdict(list, state["records"]), state.get("losses")


def make_heads(
    rates: Sequence[float], featurizer: Any, expert: Any, optimizer: Mapping[str, Any], steps: int
) -> list[Head]:
    """A head for each rate; the first takes the given modules, the others twins of them."""
    pairs = [(featurizer, expert), *((twin(featurizer), twin(expert)) for _ in rates[1:])]
    return [Head(lr, *pair, optimizer, steps) for lr, pair in zip(rates, pairs, strict=True)]


def twin(module: Any) -> Any:
    """A module with weights of its own; everything else (data sets, vocabularies) is shared."""
    other = copy.copy(module)
    memo: dict[int, Any] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        other.__dict__[part] = copy.deepcopy(module.__dict__[part], memo)
    return other


def each(heads: Sequence[Head]) -> Iterator[Head]:
    """The heads that have not been given up; each finds the random generators as the first one did.

    So dropout and masking draw for every rate what they draw for a rate alone.
    """
    live = [head for head in heads if head.stopped is None]
    before = _random_state() if len(live) > 1 else None
    for number, head in enumerate(live):
        if number and before is not None:
            _set_random_state(before)
        yield head


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, own, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(own)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


def choose(heads: Sequence[Head], task: str, metric: str, higher_better: bool) -> Head:
    """The head with the best dev score (`Head.score`); of equal ones the first. A rate without any is worst. A rate
    that was given up is not tested, whatever it had on dev before: alone it would have ended in an error.

    Raises:
        SpeechFTError: every rate was given up.
    """
    live = [head for head in heads if head.stopped is None]
    if not live:
        raise SpeechFTError(f"no learning rate of {task} works: {heads[0].stopped}", f"lower superb.{task}.lr")
    worst = -float("inf")
    sign = 1 if higher_better else -1
    return max(live, key=lambda head: sign * head.score[metric] if metric in head.score else worst)
