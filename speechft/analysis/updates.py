"""Where the weights moved: the size of an update θ' − θ0 by part of the model and by module, tensor after tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from speechft.checkpoints.folder import misfit
from speechft.checkpoints.parts import norm_last, order_of, parts_of
from speechft.checkpoints.stream import FolderReader
from speechft.errors import SpeechFTError

_LAYER = re.compile(r"^(?:encoder\.)?layers\.(\d+)\.(.+)$")
_WRAPPERS = ("feature_extractor", "feature_projection", "pos_conv_embed", "upsample")
_SHORT = {
    "attention.q_proj": "q", "attention.k_proj": "k", "attention.v_proj": "v", "attention.out_proj": "out",
    "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.out_proj": "out",
    "attention.gru_rel_pos_linear": "gate", "attention.gru_rel_pos_const": "gate", "attention.rel_attn_embed": "bias",
    "feed_forward.intermediate_dense": "ffn in", "feed_forward.output_dense": "ffn out", "fc1": "ffn in",
    "fc2": "ffn out", "layer_norm": "norm", "self_attn_layer_norm": "norm", "final_layer_norm": "final norm",
}  # fmt: skip


def module_of(name: str) -> str:
    """What of its part a tensor belongs to, by its canonical name.

    `encoder.layers.3.attention.q_proj.weight` -> `q`; `feature_extractor.conv_layers.0.conv.weight` ->
    `conv_layers.0.conv`.
    """
    found = _LAYER.match(name)
    if found:
        rest = found.group(2)
        module = rest.rpartition(".")[0] if "." in rest and rest not in _SHORT else rest
        return _SHORT.get(module, module)
    module = re.sub(r"\.(weight|bias)$", "", name.partition(".parametrizations.")[0]).removeprefix("encoder.")
    first, _, inner = module.partition(".")
    return inner if inner and first in _WRAPPERS else module


def update_norms(base: FolderReader, other: FolderReader) -> dict[str, Any]:
    """Frobenius norms of the update, summed in float64, one tensor of each model in memory.

    Floating-point tensors count as they are stored: weight norm by its g and v.

    Args:
        base: θ0.
        other: θ', of the same tensors.

    Returns:
        `norm`: ‖θ' − θ0‖; `base_norm`: ‖θ0‖; `relative`: their ratio (None where ‖θ0‖ is 0); `parts`: the same three
        for each part of the model (`checkpoints/parts.py`), in the order of the data flow, and
        in each part `modules`: name -> the same three.

    Raises:
        SpeechFTError: the models do not have the same tensors, or a weight is no finite number.
    """
    found = misfit(base.shapes(), other.shapes(), "that the first lacks")
    if found:
        raise SpeechFTError(f"{other.folder} does not fit {base.folder}: {found}", "compare models of one architecture")
    places = parts_of(base.names(), norm_last(base.config))
    sums: dict[tuple[str, str], list[float]] = {}
    for name in base.names():
        if not base.info(name).dtype.is_floating_point:
            continue
        origin = base.read(name).double()
        own = sums.setdefault((places[name], module_of(name)), [0.0, 0.0])
        size = float(origin.square().sum())
        own[0] += float((other.read(name).double() - origin).square().sum())
        own[1] += size
        if not all(map(math.isfinite, own)):
            broken = other.folder if math.isfinite(size) else base.folder
            raise SpeechFTError(f"{name} of {broken} is not finite", "its weights are broken: train or copy it again")
    parts = {
        part: {
            **_norms(pair for (own, _), pair in sums.items() if own == part),
            "modules": {module: _norms([pair]) for (own, module), pair in sums.items() if own == part},
        }
        for part in sorted({part for part, _ in sums}, key=order_of)
    }
    return {**_norms(sums.values()), "parts": parts}


def _norms(pairs: Iterable[list[float]]) -> dict[str, float | None]:
    squares = [sum(values) for values in zip(*pairs, strict=True)] or [0.0, 0.0]
    update, origin = math.sqrt(squares[0]), math.sqrt(squares[1])
    return {"norm": update, "base_norm": origin, "relative": update / origin if origin else None}
