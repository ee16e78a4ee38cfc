"""How an upstream's forward pass is computed: in which precision, compiled or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechft.errors import UsageError

if TYPE_CHECKING:
    import torch

    from speechft.upstreams.base import Upstream

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Numerics:
    """Precision and compilation of a forward pass that is not trained.

    Attributes:
        precision: `no` (float32), or autocast to `bf16` or `fp16`. Front ends (log-mels) stay in float32, and so do the
            states that come out, as tensors: their values have the coarser steps.
        compile: `torch.compile` of the transformer's layers. The first batch waits for it, a minute or so.
    """

    precision: str = "no"
    compile: bool = False

    @classmethod
    def read(cls, precision: Any, compiled: Any) -> Numerics:
        """From configuration values; YAML reads a bare `no` as false.

        Raises:
            UsageError: an unknown precision, or `compile` that is neither true nor false.
        """
        name = "no" if precision in (None, False) else str(precision)
        if name not in PRECISIONS:
            raise UsageError(f"unknown precision {name!r}", f"known: {', '.join(PRECISIONS)}")
        if not isinstance(compiled, bool):
            raise UsageError(f"compile is {compiled!r}", "true or false")
        return cls(name, compiled)

    @property
    def key(self) -> str:
        """What it adds to the key of features; nothing for the usual way."""
        return ("" if self.precision == "no" else f"-{self.precision}") + ("-compiled" if self.compile else "")

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The context in which to call the upstream."""
        import torch

        if self.precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    @contextlib.contextmanager
    def compiled(self, upstream: Upstream) -> Iterator[None]:
        """Compile the upstream's layers for as long as the context lasts.

        Only their `forward`: the hooks that collect hidden states stay outside, and one graph with free batch and frame
        sizes serves all layers.
        """
        import torch

        layers = list(upstream.layers) if self.compile else []
        for layer in layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own again


FLOAT32 = Numerics()
"""The usual way."""
