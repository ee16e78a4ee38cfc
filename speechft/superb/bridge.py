"""An upstream of ours as an upstream of s3prl: what `getattr(s3prl.hub, name)(ckpt=..., ...)` has to return."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from speechft.upstreams.base import Upstream

HUB_NAME = "speechft_upstream"
"""The attribute of `s3prl.hub` under which the upstream of the running evaluation is found."""


class Bridge(nn.Module):
    """The interface of s3prl/upstream/interfaces.py on top of `Upstream`.

    Args:
        upstream: any; it is never trained here.
    """

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = upstream

    def get_downsample_rates(self, key: str) -> int:
        """Samples from one frame to the next, the same for every kind of feature."""
        del key
        return self.upstream.hop

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        """Waveforms (1-D float32, 16 kHz) to `hidden_states`: per layer `[batch, frames, dim]` float32."""
        hidden = self.upstream(wavs)
        return {"hidden_states": list(hidden.states), "last_hidden_state": hidden.last}


@contextlib.contextmanager
def registered(upstream: Upstream) -> Iterator[str]:
    """Make the upstream known to `s3prl.hub` inside; yields the name to put into `args.upstream`."""
    from s3prl import hub

    def build(*_: Any, **__: Any) -> Bridge:
        return Bridge(upstream)

    setattr(hub, HUB_NAME, build)
    try:
        yield HUB_NAME
    finally:
        delattr(hub, HUB_NAME)
