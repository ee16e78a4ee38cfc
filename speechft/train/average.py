"""An exponential moving average of the weights (Polyak and Juditsky, 1992), off unless `trainer.ema` is a decay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Average:
    """shadow ← d · shadow + (1 − d) · weights after each step, with d = min(decay, (1 + n) / (10 + n)) at the n-th.

    The ramp, TensorFlow's, lets the first weights go: a new head's are noise. What is frozen stays bit for bit.

    Args:
        module: whose parameters are averaged; it has its first weights.
        decay: 0.999 averages over about a thousand steps.

    Attributes:
        updates: how many steps have gone in.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._shadow = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._shadow.values()), self._plain(), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights for as long as the context lasts."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    @torch.no_grad()
    def exchange(self) -> None:
        """The module gets the averaged weights, and this keeps the module's."""
        shadow, own = list(self._shadow.values()), self._plain()
        copies = [parameter.clone() for parameter in own]
        torch._foreach_copy_(own, shadow)
        torch._foreach_copy_(shadow, copies)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, besides `updates`."""
        return self._shadow

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Back to what `tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        for name, shadow in self._shadow.items():
            shadow.copy_(tensors[name])
        self.updates = updates

    def _plain(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._parameters.values()]
