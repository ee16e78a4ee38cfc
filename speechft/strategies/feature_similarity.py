"""Feature-similarity regularisation: hidden states stay near θ0's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from speechft.errors import UsageError
from speechft.strategies import checks
from speechft.strategies.penalty import Penalty

if TYPE_CHECKING:
    from speechft.data.loader import Batch
    from speechft.upstreams.base import Hidden, Upstream

DISTANCES = ("cosine", "mse")


@dataclass(frozen=True)
class FeatureSimilarity:
    """Options of the penalty.

    Attributes:
        weight: w; 0 for none.
        distance: `cosine` (1 − cosine, blind to scale) or `mse` (mean square over dimensions).
        layers: which hidden states, 0 being the input of the first layer and -1 the last; None for all.
    """

    weight: float = 0.0
    distance: str = "cosine"
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        checks.weight("feature_similarity.weight", self.weight)
        if self.distance not in DISTANCES:
            raise UsageError(
                f"unknown strategy.feature_similarity.distance {self.distance!r}", f"known: {', '.join(DISTANCES)}"
            )
        if self.layers is not None and not self.layers:
            raise UsageError("strategy.feature_similarity.layers is empty", "list some, or give null for all")

    def check(self, upstream: Upstream) -> None:
        """Whether an upstream has the layers.

        Raises:
            UsageError: it has not.
        """
        count = upstream.num_layers
        for layer in self.layers or ():
            if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
                raise UsageError(
                    f"strategy.feature_similarity.layers has {layer!r}",
                    f"this upstream has hidden states 0 to {count - 1}",
                )


class FeaturePenalty(Penalty):
    """w · mean over layers l, and over the valid frames t of the batch, of d(h_l,t(θ), h_l,t(θ0)).

    d is 1 − cosine, or the mean square of the difference. The idea is DELTA's (1901.09229, section 3: a frozen copy of
    the pre-trained network, its feature maps as the anchor) with every channel counted alike; the distances are those
    that layer-wise similarity to θ0 is reported in (2502.12672, its analysis). It is no strategy of that paper, which
    measures similarity but never asks for it.

    The states of θ are those the task itself computed, with dropout; those of θ0 come without. A task that does not
    read the upstream as a whole (masked prediction, which puts masks in) leaves none, so there the clean waveforms are
    heard once more. It costs a copy of the upstream and one forward pass of it without gradients at each batch (about
    a third of a step), in the latter case one with gradients besides.

    Args:
        upstream: still θ0.
        options: see `FeatureSimilarity`.
    """

    name = "feature_penalty"

    def __init__(self, upstream: Upstream, options: FeatureSimilarity) -> None:
        self._upstream, self._options = upstream, options
        self._anchor = copy.deepcopy(upstream).eval().requires_grad_(False)
        self._heard: list[tuple[tuple, dict, Hidden]] = []
        count = upstream.num_layers
        # counted from the last one, which is the only one there is where the task asked for no other
        self._layers = sorted({layer % count - count for layer in options.layers or range(count)})
        self._all = self._layers != [-1]
        upstream.register_forward_pre_hook(self._ask, with_kwargs=True)
        upstream.register_forward_hook(self._keep, with_kwargs=True)

    def _active(self) -> bool:
        training = self._upstream.training and torch.is_grad_enabled()
        return training and any(parameter.requires_grad for parameter in self._upstream.parameters())

    def _ask(self, _module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Have all states computed where the task wants only the last."""
        return (args[:1], {**kwargs, "last_only": False}) if self._all and self._active() else None

    def _keep(self, _module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if self._active():
            self._heard.append((args, kwargs, output))

    def value(self, batch: Batch) -> Tensor | None:
        if not self._active():
            return None
        if not self._heard:
            self._upstream(batch.waves, last_only=not self._all)
        heard, self._heard = self._heard, []
        terms = []
        for args, kwargs, hidden in heard:
            with torch.no_grad():
                anchor = self._anchor(*args, **kwargs)
            pairs = [(hidden.states[layer], anchor.states[layer]) for layer in self._layers]
            terms.append(distance(self._options.distance, pairs, hidden.frames))
        return self._options.weight * torch.stack(terms).mean()


def distance(kind: str, pairs: Sequence[tuple[Tensor, Tensor]], frames: Tensor) -> Tensor:
    """How far states are from their anchors: a scalar, 0 where they are the same.

    Args:
        kind: `cosine` or `mse`.
        pairs: for each layer two tensors `[batch, frames, dim]`.
        frames: `[batch]` int64, how many are valid.
    """
    length = pairs[0][0].shape[1]
    valid = torch.arange(length, device=frames.device)[None, :] < frames[:, None]
    means = []
    for states, anchors in pairs:
        own, theirs = states[valid].float(), anchors[valid].float()  # [frames of the batch, dim]
        if kind == "mse":
            means.append((own - theirs).square().mean())
        else:
            means.append(1 - nn.functional.cosine_similarity(own, theirs, dim=-1).mean())
    return torch.stack(means).mean()
