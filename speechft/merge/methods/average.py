"""Averaging over time: θ̂ = θ0 + α · Σ_t w_t (θ_t − θ0), w_t ∝ decay^(T − t), for the checkpoints of one run.

With decay 1 all count alike: stochastic weight averaging (1803.05407, section 3.2). Below 1 the later ones count more:
an exponential moving average over the checkpoints (Polyak and Juditsky, 1992; as used in 1703.01780), without the bias
towards its start, as the weights sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from speechft.merge.method import Method, Parameter
from speechft.merge.methods._tensors import at_an_end, task_vectors, weighted


def average(base: Tensor, tuned: Sequence[Tensor], alpha: float, *, decay: float = 1.0) -> Tensor:
    """Average one tensor.

    Args:
        base: θ0, any shape.
        tuned: θ_t, the earliest first, each of the same shape.
        alpha: weight of the averaged side.
        decay: what a checkpoint counts to the next one.

    Returns:
        The same shape, float32 (float64 if a parent is).
    """
    end = at_an_end(base, tuned, alpha)
    if end is not None:
        return end
    origin, updates = task_vectors(base, tuned)
    weights = [decay ** (len(updates) - 1 - index) for index in range(len(updates))]
    return origin + weighted(updates, weights, normalize=True).mul_(alpha)


METHOD = Method(
    "average", average, "θ0 + α · Σ_t w_t (θ_t − θ0), w_t ∝ decay^(T−t), over a run's checkpoints",
    "SWA, arXiv 1803.05407; EMA, Polyak and Juditsky 1992",
    (Parameter("decay", "float", 1.0, "what a checkpoint counts to the next; 1 is SWA, below 1 EMA", open_low=True),),
    elementwise=True,
)  # fmt: skip
