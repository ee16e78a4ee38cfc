"""Layer-wise learning rates: the nearer to the waveform, the slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechft.upstreams.base import Upstream


def rate_factors(upstream: Upstream, decay: float) -> dict[int, float]:
    """The share of the peak rate that each parameter of an upstream learns at.

    With L layers, layer l (from 0) has decay^(L−1−l): the top one the whole rate, every other a fixed share of the one
    above it. What stands before the layers (CNN, projection, positions, mask embedding) has decay^L, what stands behind
    them (a last layer norm) the whole rate. ULMFiT's discriminative fine-tuning (1801.06146, section 3.2) in the form
    that ELECTRA (2003.10555, appendix) and BEiT use.

    Args:
        upstream: whose `parts()` are counted.
        decay: above 0, at most 1.

    Returns:
        `id` of a parameter -> its factor.
    """
    parts = upstream.parts()
    layers = [part for part in parts if part.startswith("layers.")]
    depth = {part: len(layers) - 1 - place for place, part in enumerate(layers)}
    behind = ("layer_norm", "upsample")
    factors = {}
    for part, parameters in parts.items():
        power = depth.get(part, 0 if part in behind else len(layers))
        factors.update({id(parameter): decay**power for parameter in parameters})
    return factors
