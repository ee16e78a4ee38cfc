"""Which part of an upstream a tensor belongs to, by its canonical name: the parts that strategies can freeze too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LAYER = re.compile(r"(?:encoder\.)?layers\.(\d+)\.")
_BY_PREFIX = (
    ("feature_extractor.", "cnn"), ("conv1.", "cnn"), ("conv2.", "cnn"), ("feature_projection.", "projection"),
    ("projection.", "projection"), ("encoder.pos_conv_embed.", "position"), ("encoder.layer_norm.", "position"),
    ("embed_positions.", "position"), ("encoder.upsample.", "upsample"), ("masked_spec_embed", "mask_embedding"),
)  # fmt: skip
_FIRST = ("cnn", "projection", "mask_embedding", "position")


def norm_last(config: Mapping[str, Any]) -> bool:
    """Whether the encoder's layer norm comes after its last layer (large models), not before its first (base models):
    transformers' `do_stable_layer_norm`."""
    return bool(config.get("do_stable_layer_norm"))


def parts_of(names: Iterable[str], last_norm: bool = False) -> dict[str, str]:
    """Canonical name -> `cnn`, `projection`, `position`, `layers.0` ..., as `Upstream.parts()` has them.

    Args:
        names: of all tensors of one upstream.
        last_norm: see `norm_last`; the encoder's layer norm is then the part `layer_norm`, otherwise of `position`.
    """
    names = list(names)
    # Whisper's layer norm of that name comes last, SEW's first.
    whisper = any(name.startswith("embed_positions.") for name in names)
    found = {}
    for name in names:
        layer = _LAYER.match(name)
        if layer:
            found[name] = f"layers.{layer.group(1)}"
        elif last_norm and name.startswith("encoder.layer_norm."):
            found[name] = "layer_norm"
        elif name.startswith("layer_norm."):
            found[name] = "layer_norm" if whisper else "projection"
        else:
            found[name] = next((part for prefix, part in _BY_PREFIX if name.startswith(prefix)), name.split(".")[0])
    return found


def order_of(part: str) -> tuple[int, int, str]:
    """A key that sorts parts in the order of the data flow."""
    name, _, number = part.partition(".")
    if name == "layers" and number.isdigit():
        return len(_FIRST), int(number), ""
    return (_FIRST.index(part), 0, "") if part in _FIRST else (len(_FIRST) + 1, 0, part)


def depths_of(names: Iterable[str], last_norm: bool = False) -> dict[str, float]:
    """Canonical name -> how deep it is, from 0 (before the transformer and in its first layer) to 1 (its last, and
    what comes after it)."""
    parts = parts_of(names, last_norm)
    last = max((int(part.partition(".")[2]) for part in parts.values() if part.startswith("layers.")), default=0)
    depths = {}
    for name, part in parts.items():
        if part.startswith("layers."):
            depths[name] = int(part.partition(".")[2]) / last if last else 0.0
        else:
            depths[name] = 1.0 if part in ("upsample", "layer_norm") else 0.0
    return depths
