"""Weight-space regularisation: L2 towards θ0 instead of towards zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from speechft.strategies.penalty import Penalty

if TYPE_CHECKING:
    from speechft.data.loader import Batch


class L2Penalty(Penalty):
    """λ‖θ − θ0‖² = λ Σ_i (θ_i − θ0_i)², whose gradient is 2λ(θ − θ0).

    The L2-SP of Li et al. (1802.01483, equation 2, where λ is written α/2), which 2502.12672 has as its baseline of
    weight-space regularisation. A sum over the weights rather than a mean, as there: what it asks of one weight does
    not depend on how many others there are. Weight norm's g and v count as they are stored. The head has no θ0 and is
    left free.

    It costs a copy of the weights, and one pass over them at each batch.

    Args:
        parameters: those that train at some time, by name, still at θ0.
        coefficient: λ.
    """

    name = "l2_penalty"

    def __init__(self, parameters: Mapping[str, nn.Parameter], coefficient: float) -> None:
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in parameters.values()]
        self._coefficient = coefficient

    def value(self, batch: Batch) -> Tensor | None:
        del batch
        moved = [
            (parameter - anchor).square().sum(dtype=torch.float32)
            for parameter, anchor in self._pairs
            if parameter.requires_grad
        ]
        return self._coefficient * torch.stack(moved).sum() if moved else None
