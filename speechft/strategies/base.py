"""What a strategy says: what trains at a step, at which share of the rate, and what is added to the loss.

The loop asks, the strategy answers. Every answer follows from the options and the step, so that a resumed run is in the
right phase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from speechft.errors import UsageError
from speechft.strategies import checks
from speechft.strategies.adapters import Adapter, adapter_parameters, attach, attached, merge, need_peft, target_modules
from speechft.strategies.feature_similarity import FeatureSimilarity
from speechft.strategies.layer_decay import rate_factors

if TYPE_CHECKING:
    from torch import nn

    from speechft.strategies.penalty import Penalty
    from speechft.upstreams.base import Upstream

HEAD_PHASE = "head"
"""Only the task head trains; the upstream is frozen as a whole."""
FULL_PHASE = "full"
"""The upstream trains too, except the parts that stay frozen."""
UPSTREAM_PHASE = "upstream"
"""The upstream trains, the head does not any more."""


@dataclass(frozen=True)
class Strategy:
    """How θ0 becomes θ'. All options can be combined, except where one would undo another.

    - stable (2502.12672, section III-A): for the first 10 % of the steps only the head D trains; after that D and the
      upstream, except its down-sampling CNN.
    - regular, the paper's baseline: D and all of the upstream from the first step.
    - early checkpoint, its baseline too: θ' is what the run is after a share of its steps. The schedule is the whole
      run's, so the result is bit for bit the checkpoint that the whole run would have written there.
    - frozen downstream: D trains while the upstream is frozen, and is frozen in its turn from the unfreeze on, so that
      every later change of the loss is the upstream's. The other reading of the paper's freeze; not the paper's.
    - L2 towards θ0: `l2.py`. LoRA, DoRA: `adapters.py`. Feature similarity: `feature_similarity.py`. Layer-wise rates:
      `layer_decay.py`.

    Attributes:
        name: of the configuration, or the user's own.
        freeze_fraction: share of the steps in which only the head trains.
        freeze_steps: the same as a number of optimiser steps; it goes before the share.
        frozen_parts: parts of the upstream (`Upstream.parts()`) that never train: a name (`cnn`), a prefix (`layers`),
            or a pattern (`layers.[0-3]`).
        frozen_parameters: parameters that never train, as patterns of their names (`*layer_norm*`).
        frozen_downstream: the head stays as it is when its phase ends.
        stop_fraction: share of the steps after which the run ends; None for all.
        stop_steps: the same as a number of steps; it goes before the share.
        layer_decay: every layer learns at this share of the rate of the one above it.
        l2: λ of the penalty λ‖θ − θ0‖².
        feature_similarity: a penalty that keeps hidden states near θ0's.
        adapter: LoRA or DoRA instead of the weights themselves.
    """

    name: str
    freeze_fraction: float = 0.0
    freeze_steps: int | None = None
    frozen_parts: tuple[str, ...] = ()
    frozen_parameters: tuple[str, ...] = ()
    frozen_downstream: bool = False
    stop_fraction: float | None = None
    stop_steps: int | None = None
    layer_decay: float = 1.0
    l2: float = 0.0
    feature_similarity: FeatureSimilarity = field(default_factory=FeatureSimilarity)
    adapter: Adapter = field(default_factory=Adapter)

    def __post_init__(self) -> None:
        checks.share("freeze_fraction", self.freeze_fraction, zero=True)
        if self.freeze_steps is not None:
            checks.whole("freeze_steps", self.freeze_steps, 0)
        if self.stop_fraction is not None:
            checks.share("stop_fraction", self.stop_fraction, one=True)
        if self.stop_steps is not None:
            checks.whole("stop_steps", self.stop_steps, 1)
        checks.switch("frozen_downstream", self.frozen_downstream)
        checks.share("layer_decay", self.layer_decay, one=True)
        checks.weight("l2", self.l2)
        if self.frozen_downstream and not (self.freeze_fraction or self.freeze_steps):
            raise UsageError(
                "strategy.frozen_downstream freezes a head that has had no phase of its own",
                "give strategy.freeze_fraction, 0.1 for instance",
            )
        if self.adapter.kind and self.l2:
            raise UsageError(
                f"strategy.l2 has nothing to hold where {self.adapter.kind} leaves θ0's weights alone",
                "choose one of the two",
            )

    def frozen_steps(self, total: int) -> int:
        """How many steps at the beginning train the head alone."""
        return round(self.freeze_fraction * total) if self.freeze_steps is None else self.freeze_steps

    def last_step(self, total: int) -> int:
        """After how many of the schedule's steps the run ends."""
        if self.stop_steps is not None:
            return min(self.stop_steps, total)
        return total if self.stop_fraction is None else max(1, round(self.stop_fraction * total))

    def phase(self, step: int, total: int) -> str:
        """The phase of step `step` (from 0) of `total`."""
        if step < self.frozen_steps(total):
            return HEAD_PHASE
        return UPSTREAM_PHASE if self.frozen_downstream else FULL_PHASE

    def trainable_parts(self, parts: Iterable[str], step: int, total: int) -> set[str]:
        """Which of an upstream's parts train at a step.

        Raises:
            UsageError: a frozen part that the upstream does not have.
        """
        parts = list(parts)
        for frozen in self.frozen_parts:
            if not any(_covers(frozen, part) for part in parts) and frozen != "cnn":  # DeCoAR 2.0 has no CNN to freeze
                raise UsageError(f"this upstream has no part {frozen!r}", f"its parts: {', '.join(parts)}")
        if self.phase(step, total) == HEAD_PHASE:
            return set()
        return {part for part in parts if not any(_covers(frozen, part) for frozen in self.frozen_parts)}

    def trainable(self, upstream: Upstream, step: int, total: int) -> dict[str, nn.Parameter]:
        """The upstream's parameters that train at a step, by name; with an adapter, the adapter's alone.

        Raises:
            UsageError: a frozen part or parameter that the upstream does not have.
        """
        parts = upstream.parts()
        open_parts = self.trainable_parts(parts, step, total)
        open_ids = {id(parameter) for part in open_parts for parameter in parts[part]}
        named = dict(upstream.named_parameters())
        for pattern in self.frozen_parameters:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise UsageError(
                    f"no parameter of this upstream is like {pattern!r}", f"its first is {next(iter(named))}"
                )
        found = {
            name: parameter
            for name, parameter in named.items()
            if id(parameter) in open_ids and not any(fnmatchcase(name, pattern) for pattern in self.frozen_parameters)
        }
        return adapter_parameters(found) if attached(upstream) else found

    def frozen(self, upstream: Upstream, total: int) -> dict[str, nn.Parameter]:
        """The upstream's parameters that never train, by name."""
        trained = self.trainable(upstream, self.last_step(total) - 1, total)
        return {name: parameter for name, parameter in upstream.named_parameters() if name not in trained}

    def check(self, upstream: Upstream, total: int) -> None:
        """Find out before anything is made whether the options fit an upstream and a number of steps.

        Raises:
            UsageError: they do not.
            SpeechFTError: an adapter without peft.
        """
        frozen, last = self.frozen_steps(total), self.last_step(total)
        if frozen >= last and frozen:
            raise UsageError(
                f"the upstream is frozen for {frozen} steps of a run that ends after {last}",
                "a θ' like θ0 is of no use: freeze fewer steps, or train longer",
            )
        if not self.trainable(upstream, last - 1, total):
            raise UsageError("everything in the upstream is frozen", "take something out of strategy.frozen_parts")
        self.feature_similarity.check(upstream)
        if self.adapter.kind:
            need_peft()
            target_modules(upstream, self.adapter, self.trainable(upstream, last - 1, total))

    def begin(self, upstream: Upstream, total: int, seed: int) -> list[Penalty]:
        """Make an upstream that is still θ0, on its device, ready to be trained: keep of θ0 what penalties need, put
        adapters in.

        Args:
            upstream: changed in place where there is an adapter.
            total: optimiser steps of the schedule.
            seed: of the adapter's first weights.

        Returns:
            what `penalty.py: penalised` adds to the task's loss.
        """
        penalties: list[Penalty] = []
        trained = self.trainable(upstream, self.last_step(total) - 1, total)
        if self.l2:
            from speechft.strategies.l2 import L2Penalty

            penalties.append(L2Penalty(trained, self.l2))
        if self.feature_similarity.weight:
            from speechft.strategies.feature_similarity import FeaturePenalty

            penalties.append(FeaturePenalty(upstream, self.feature_similarity))
        if self.adapter.kind:
            attach(upstream, self.adapter, trained, seed)
        return penalties

    def rate_factors(self, upstream: Upstream) -> dict[int, float] | None:
        """The share of the peak rate that each parameter learns at, by `id`; None where all learn at the same."""
        return rate_factors(upstream, self.layer_decay) if self.layer_decay < 1.0 else None

    def enter(self, upstream: Upstream, task: nn.Module, step: int, total: int) -> None:
        """Switch gradients on and off for the phase of a step."""
        trainable = self.trainable(upstream, step, total)
        for name, parameter in upstream.named_parameters():
            parameter.requires_grad_(name in trainable)
        if self.phase(step, total) == UPSTREAM_PHASE:
            task.requires_grad_(False)

    def end(self, upstream: Upstream) -> None:
        """Leave plain weights behind: adapters are merged into them."""
        if attached(upstream):
            merge(upstream)


def _covers(frozen: str, part: str) -> bool:
    return part == frozen or part.startswith(f"{frozen}.") or fnmatchcase(part, frozen)
