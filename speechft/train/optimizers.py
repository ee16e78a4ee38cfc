"""From the `trainer` group to an optimizer: Adam, AdamW, or Muon for the transformer's matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from speechft.errors import UsageError
from speechft.tasks.base import Task
from speechft.upstreams.base import Upstream


def build_optimizer(
    upstream: Upstream,
    task: Task,
    options: Mapping[str, Any],
    head_lr: float | None,
    factors: Mapping[int, float] | None = None,
) -> Any:
    """One optimizer for head and upstream. The last group of parameters is always the upstream's, at the peak rate.

    Args:
        options: the `trainer` group: `optimizer`, `lr`, `betas`, `eps`, `weight_decay`.
        head_lr: peak rate of the head; None is the upstream's.
        factors: `id` of a parameter of the upstream -> its share of the rate (`strategies/layer_decay.py`).

    Raises:
        UsageError: unknown optimizer.
    """
    classes: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
    }  # fmt: skip
    name = options["optimizer"]
    if name not in classes:
        raise UsageError(f"unknown optimizer {name!r}", f"known: {', '.join(classes)}")
    head: dict[str, Any] = {"params": list(task.parameters()), "lr": options["lr"] if head_lr is None else head_lr}
    whole: dict[str, Any] = {"params": list(upstream.parameters()), "lr": options["lr"]}
    groups = [head, whole]
    if name == "muon":
        layers = (p for part, group in upstream.parts().items() if part.startswith("layers.") for p in group)
        matrices = [parameter for parameter in layers if parameter.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        rest = [parameter for parameter in whole["params"] if id(parameter) not in chosen]
        groups = [head, {**whole, "params": rest}, {**whole, "params": matrices, "orthogonal": True}]
    if factors:
        groups = [head, *(part for group in groups[1:] for part in _by_rate(group, factors))]
    # One kernel for an update: a base model on a CPU takes 0.06 s instead of 0.22. Muon changes its groups as it goes.
    fused = {"fused": True} if name != "muon" else {}
    # Adam makes a parameter's state at its first gradient, so the upstream's starts at the unfreeze.
    return classes[name](
        groups,
        betas=tuple(options["betas"]),
        eps=float(options["eps"]),
        weight_decay=float(options["weight_decay"]),
        **fused,
    )


def _by_rate(group: dict[str, Any], factors: Mapping[int, float]) -> list[dict[str, Any]]:
    """A group as one for each rate, the slowest first."""
    rates = sorted({factors.get(id(parameter), 1.0) for parameter in group["params"]})
    return [
        {**group, "lr": group["lr"] * rate, "params": [p for p in group["params"] if factors.get(id(p), 1.0) == rate]}
        for rate in rates
    ]


class Muon(torch.optim.AdamW):
    """AdamW, except for groups with `orthogonal: True`: their matrices get momentum made orthogonal.

    Muon (Jordan et al., 2024) with Nesterov momentum 0.95 and the scale of 2502.16982, section 2.2: an update has the
    root mean square that AdamW's typically has (0.2), so one learning rate serves both. `torch.optim.Muon` computes in
    bfloat16 whatever it is given, which takes 29 times as long as float32 where the processor has no such arithmetic
    (a 192 x 512 matrix on an AVX2 core, 178 ms against 6): hence this one, in the parameters' own type.
    """

    momentum = 0.95

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        for group in self.param_groups:
            group.setdefault("orthogonal", False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["orthogonal"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = everything
        for group in everything:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._turn(parameter, parameter.grad, float(group["lr"]), float(group["weight_decay"]))
        return loss

    def _turn(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # Adam looks for it when it takes up a saved state
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        update = orthogonalised(gradient.lerp(state["momentum"], self.momentum))
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update, alpha=-lr * 0.2 * max(parameter.shape) ** 0.5)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with singular values near 1, by Muon's Newton-Schulz iteration: `[rows, columns]` -> the same.

    The coefficients are the published ones: they bring small singular values up fast and leave all between about 0.7
    and 1.2.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    turned = matrix.T if tall else matrix
    turned = turned / turned.norm().clamp(min=1e-12)
    for _ in range(steps):
        gram = turned @ turned.T
        turned = 3.4445 * turned + (-4.775 * gram + 2.0315 * gram @ gram) @ turned
    return turned.T if tall else turned
