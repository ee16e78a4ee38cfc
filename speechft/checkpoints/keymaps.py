"""Names of tensors: one table per family between fairseq's (and s3prl's) spelling and Hugging Face's.

fairseq's names: `fairseq/models/wav2vec/wav2vec2.py` and `hubert/hubert.py`, which s3prl copies; WavLM's, and
UniSpeech-SAT's: `s3prl/upstream/wavlm/WavLM.py`. A pattern matches a whole name; `{}` is a layer's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from torch import Tensor

from speechft.errors import SpeechFTError

_SHARED = {  # native -> Hugging Face
    "mask_emb": "masked_spec_embed",
    "layer_norm.weight": "feature_projection.layer_norm.weight",
    "layer_norm.bias": "feature_projection.layer_norm.bias",
    "post_extract_proj.weight": "feature_projection.projection.weight",
    "post_extract_proj.bias": "feature_projection.projection.bias",
    "feature_extractor.conv_layers.{}.0.weight": "feature_extractor.conv_layers.{}.conv.weight",
    "feature_extractor.conv_layers.{}.0.bias": "feature_extractor.conv_layers.{}.conv.bias",
    "feature_extractor.conv_layers.{}.2.weight": "feature_extractor.conv_layers.{}.layer_norm.weight",
    "feature_extractor.conv_layers.{}.2.bias": "feature_extractor.conv_layers.{}.layer_norm.bias",
    "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.layer_norm.weight": "encoder.layer_norm.weight",
    "encoder.layer_norm.bias": "encoder.layer_norm.bias",
}
for _part in ("weight", "bias"):
    for _name in ("q", "k", "v", "out"):
        _SHARED[f"encoder.layers.{{}}.self_attn.{_name}_proj.{_part}"] = (
            f"encoder.layers.{{}}.attention.{_name}_proj.{_part}"
        )
    for _native, _hugging in (
        ("self_attn_layer_norm", "layer_norm"), ("final_layer_norm", "final_layer_norm"),
        ("fc1", "feed_forward.intermediate_dense"), ("fc2", "feed_forward.output_dense"),
    ):  # fmt: skip
        _SHARED[f"encoder.layers.{{}}.{_native}.{_part}"] = f"encoder.layers.{{}}.{_hugging}.{_part}"

_WAVLM = {
    "encoder.layers.{}.self_attn.relative_attention_bias.weight": "encoder.layers.{}.attention.rel_attn_embed.weight",
    "encoder.layers.{}.self_attn.grep_linear.weight": "encoder.layers.{}.attention.gru_rel_pos_linear.weight",
    "encoder.layers.{}.self_attn.grep_linear.bias": "encoder.layers.{}.attention.gru_rel_pos_linear.bias",
    "encoder.layers.{}.self_attn.grep_a": "encoder.layers.{}.attention.gru_rel_pos_const",
}

_DECOAR2 = {
    **{native: hugging for native, hugging in _SHARED.items() if native.startswith("encoder.")},
    "post_extract_proj.weight": "projection.weight",
    "post_extract_proj.bias": "projection.bias",
}

NATIVE_TO_HF: dict[str, dict[str, str]] = {
    "hubert": _SHARED,
    "wav2vec2": _SHARED,
    "wavlm": {**_SHARED, **_WAVLM},
    "unispeech-sat": _SHARED,
    "decoar2": _DECOAR2,  # Hugging Face has no such class: the names are ours, as close as can be
}
"""Family -> native pattern -> Hugging Face pattern."""

HEADS: dict[str, tuple[str, ...]] = {
    "hubert": ("final_proj.", "label_embs_concat", "target_glu."),
    "wav2vec2": ("final_proj.", "quantizer.", "project_q.", "target_glu.", "input_quantizer.", "project_inp."),
    "wavlm": (),
    "unispeech-sat": (),
    "decoar2": (),
}
"""Family -> how native names of the pre-training's head begin: no part of an upstream, kept beside it."""


def in_head(name: str, family: str) -> bool:
    """Whether a native name belongs to the pre-training's head.

    For DeCoAR 2.0 that is all but the projection and the transformer: s3prl loads those two and ignores the rest.
    """
    if family == "decoar2":
        return not name.startswith(("encoder.", "post_extract_proj."))
    return name.startswith(HEADS[family])


@cache
def _compiled(family: str, layer_norm: bool, to_hf: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = []
    for native, hugging in NATIVE_TO_HF[family].items():
        if layer_norm:  # with a norm in every convolution, fairseq wraps it between two transpositions
            native = native.replace("conv_layers.{}.2.", "conv_layers.{}.2.1.")
        source, target = (native, hugging) if to_hf else (hugging, native)
        pattern = re.compile(re.escape(source).replace(r"\{\}", r"(\d+)") + r"\Z")
        pairs.append((pattern, target.replace("{}", r"\1")))
    return tuple(pairs)


def rename(state: Mapping[str, Tensor], family: str, layer_norm: bool, to_hf: bool, source: str) -> dict[str, Tensor]:
    """Tensors under the other spelling; heads must be taken out before.

    Args:
        state: names -> tensors.
        family: `hubert`, `wav2vec2`, `wavlm`, `unispeech-sat`, `decoar2`.
        layer_norm: whether every convolution has a norm (large models), not only the first (base models).
        to_hf: the direction.
        source: the file, for the message.

    Raises:
        SpeechFTError: a name that the family does not have.
    """
    pairs = _compiled(family, layer_norm, to_hf)
    renamed, unknown = {}, []
    for name, tensor in state.items():
        for pattern, target in pairs:
            match = pattern.match(name)
            if match:
                renamed[match.expand(target)] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        listed = ", ".join(sorted(unknown)[:3]) + (" ..." if len(unknown) > 3 else "")
        raise SpeechFTError(
            f"{source} has {len(unknown)} tensors that no {family} has ({listed})",
            "it is of another family, or of a variant that is not known",
        )
    return renamed
