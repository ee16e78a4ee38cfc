"""LoRA and DoRA: small matrices beside the weights of θ0, merged into them at the end (peft)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechft.errors import SpeechFTError, UsageError
from speechft.strategies import checks

if TYPE_CHECKING:
    from torch import nn

    from speechft.upstreams.base import Upstream

KINDS = ("lora", "dora")
TARGETS: dict[str, tuple[str, ...]] = {
    # transformers' names: the wav2vec 2.0 family's and DeCoAR 2.0's, then Whisper's
    "query": ("attention.q_proj", "self_attn.q_proj"),
    "key": ("attention.k_proj", "self_attn.k_proj"),
    "value": ("attention.v_proj", "self_attn.v_proj"),
    "output": ("attention.out_proj", "self_attn.out_proj"),
    "feed_forward": ("feed_forward.intermediate_dense", "feed_forward.output_dense", "fc1", "fc2"),
    "projection": ("feature_projection.projection", "model.feature_projection", "model.projection"),
}
"""What of a layer can get an adapter, and the modules that are it. Whisper has no `projection`."""


@dataclass(frozen=True)
class Adapter:
    """W0, `[out, in]`, becomes a function of a few weights that train; W0 itself, biases and norms stay θ0's.

    - LoRA (2106.09685, equation 3): W = W0 + (α/r) B A with A `[r, in]`, B `[out, r]`; B starts at 0.
    - DoRA (2402.09353, equation 5): W = m · V / ‖V‖, V = W0 + (α/r) B A, the norm taken over each output's row; m
      starts at ‖W0‖, and no gradient goes through ‖V‖ (its section 4.3).

    Both are baselines of 2502.12672. Attention's query and value are LoRA's own choice of targets (its section 7.1).
    Adapters go only where the strategy lets weights train.

    Attributes:
        kind: `lora`, `dora`, or None for neither.
        rank: r.
        alpha: α; with α = 2r the update of W is 2 B A.
        dropout: of the adapter's input.
        targets: names of `TARGETS`.
    """

    kind: str | None = None
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"unknown strategy.adapter.kind {self.kind!r}", f"known: {', '.join(KINDS)}, or null")
        checks.whole("adapter.rank", self.rank, 1)
        checks.weight("adapter.alpha", self.alpha, zero=False)
        checks.share("adapter.dropout", self.dropout, zero=True)
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise UsageError(f"strategy.adapter.targets are {list(self.targets)}", f"choose from {', '.join(TARGETS)}")


def target_modules(upstream: Upstream, options: Adapter, trained: Mapping[str, nn.Parameter]) -> list[str]:
    """The names of the linear modules that get an adapter.

    Args:
        upstream: without adapters.
        options: whose targets count.
        trained: parameters that would train without an adapter; where the weight is not among them, none is put.

    Raises:
        UsageError: a target that the upstream does not have, or has only where it is frozen.
    """
    from torch import nn

    linear = [name for name, module in upstream.named_modules() if isinstance(module, nn.Linear)]
    chosen = set()
    for target in options.targets:
        found = [
            name
            for name in linear
            if f"{name}.weight" in trained and any(f".{name}".endswith(f".{suffix}") for suffix in TARGETS[target])
        ]
        if not found:
            raise UsageError(
                f"{upstream.identity.name} has no {target} that trains",
                "take it out of strategy.adapter.targets, or out of what is frozen",
            )
        chosen.update(found)
    return [name for name in linear if name in chosen]


def attach(upstream: Upstream, options: Adapter, trained: Mapping[str, nn.Parameter], seed: int) -> None:
    """Put adapters into an upstream, in place; its features do not change.

    Args:
        upstream: on its device.
        options, trained: see `target_modules`.
        seed: of A's first values; the caller's random state is left as it is.

    Raises:
        UsageError: as `target_modules`.
        SpeechFTError: peft is missing.
    """
    import torch

    names = target_modules(upstream, options, trained)
    peft = need_peft()
    config = peft.LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, use_dora=options.kind == "dora",
        target_modules=names, bias="none",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, upstream)


def attached(upstream: Upstream) -> bool:
    """Whether an upstream has adapters in it."""
    return hasattr(upstream, "peft_config")


def adapter_parameters(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those of an adapter (A, B, and DoRA's m), by name."""
    return {name: parameter for name, parameter in parameters.items() if ".lora_" in name}


def merge(upstream: Upstream) -> None:
    """Turn adapters into plain weights, in place: the same features, without dropout, and the parameters of before.

    Raises:
        SpeechFTError: a weight is not finite.
    """
    need_peft()
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, module) for name, module in upstream.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise SpeechFTError(f"the adapter of {name} is not finite", "train with a lower trainer.lr") from error
        upstream.set_submodule(name, layer.get_base_layer())
    del upstream.peft_config


def need_peft() -> Any:
    """The package peft.

    Raises:
        SpeechFTError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise SpeechFTError("LoRA and DoRA need peft, which is not installed", "pip install peft") from error
    return peft
