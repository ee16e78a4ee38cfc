"""Configurations of fairseq's models, as s3prl's converted files hold them, to and from Hugging Face's `config.json`.

The native names and defaults: `s3prl/upstream/wav2vec2/wav2vec2_model.py` (`Wav2Vec2Config`), `hubert/hubert_model.py`
(`HubertConfig`) and `wavlm/WavLM.py` (`WavLMConfig`, of UniSpeech-SAT too).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from speechft.errors import SpeechFTError

_SAME = {  # native -> (Hugging Face, default of both where a file does not say)
    "encoder_layers": ("num_hidden_layers", 12),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
    "activation_fn": ("hidden_act", "gelu"),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "dropout_input": ("feat_proj_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.0),
    "layer_norm_first": ("do_stable_layer_norm", False),
    "conv_bias": ("conv_bias", False),
    "conv_pos": ("num_conv_pos_embeddings", 128),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16),
}
_WAVLM = {"num_buckets": ("num_buckets", 320), "max_distance": ("max_bucket_distance", 1280)}
_NORMS = {"default": "group", "layer_norm": "layer"}
_CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
_CLASSES = {
    "hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "wavlm": "WavLMModel", "unispeech-sat": "UniSpeechSatModel",
}  # fmt: skip


def convolutions(text: str) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of every convolution from fairseq's expression, which the originals hand to `eval`.

    Args:
        text: lists of tuples of whole numbers, added and repeated: `[(512,10,5)] + [(512,3,2)] * 4`.

    Raises:
        SpeechFTError: anything else.
    """

    def value(node: ast.expr) -> list[tuple[int, int, int]]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            times = ast.literal_eval(node.right)
            if isinstance(times, int) and 0 <= times <= 64:
                return value(node.left) * times
        if isinstance(node, ast.List):
            items = ast.literal_eval(node)
            if all(isinstance(item, tuple) and len(item) == 3 and all(type(x) is int for x in item) for item in items):
                return items
        raise ValueError(text)

    try:
        layers = value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        layers = []
    if not layers:
        raise SpeechFTError(
            f"conv_feature_layers is no list of convolutions ({text[:60]!r})", "the checkpoint is damaged or foreign"
        )
    return layers


def to_hf(family: str, native: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`config.json` of a native model configuration.

    Args:
        family: `hubert`, `wav2vec2`, `wavlm`, `unispeech-sat`.
        native: the model's part of the configuration, plain.
        source: the file, for messages.

    Raises:
        SpeechFTError: a variant that Hugging Face's classes do not compute.
    """
    for key, only in (("layer_type", "transformer"), ("pos_conv_depth", 1), ("quantize_input", False),
                      ("crop_seq_to_multiple", 1)):  # fmt: skip
        if native.get(key, only) != only:
            raise SpeechFTError(f"{source} is a variant that is not supported ({key}: {native[key]})", f"known: {only}")
    if family == "wavlm" and not native.get("gru_rel_pos"):
        raise SpeechFTError(f"{source} is a WavLM without gates in its relative positions", "no published WavLM is")
    norm = str(native.get("extractor_mode", "default"))
    if norm not in _NORMS:
        raise SpeechFTError(f"{source} has an unknown extractor_mode {norm!r}", f"known: {', '.join(_NORMS)}")
    layers = convolutions(str(native.get("conv_feature_layers", _CONVOLUTIONS)))
    table = {**_SAME, **(_WAVLM if family == "wavlm" else {})}
    config = {hugging: native.get(name, default) for name, (hugging, default) in table.items()}
    return {
        **config,
        "model_type": family,
        "architectures": [_CLASSES[family]],
        "feat_extract_norm": _NORMS[norm],
        "feat_extract_activation": "gelu",
        "conv_dim": [channels for channels, _, _ in layers],
        "conv_kernel": [kernel for _, kernel, _ in layers],
        "conv_stride": [stride for _, _, stride in layers],
        "num_feat_extract_layers": len(layers),
        "layer_norm_eps": 1e-5,
        "apply_spec_augment": False,
        "mask_time_prob": 0.05,
    }


def to_native(family: str, config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model's part of a native configuration from a `config.json`.

    Raises:
        SpeechFTError: the native classes do not compute what this configuration says.
    """
    fixed: tuple[tuple[str, Any], ...] = (
        ("feat_extract_activation", "gelu"), ("layer_norm_eps", 1e-5), ("conv_pos_batch_norm", False),
        ("feat_proj_layer_norm", True), ("add_adapter", False),
    )  # fmt: skip
    for key, only in fixed:
        if config.get(key, only) != only:
            raise SpeechFTError(f"s3prl's {family} cannot compute {source} ({key}: {config[key]})", f"it has {only}")
    # Hugging Face's own defaults, where config.json leaves something out.
    import transformers

    classes: dict[str, Any] = {
        "hubert": transformers.HubertConfig, "wav2vec2": transformers.Wav2Vec2Config, "wavlm": transformers.WavLMConfig,
        "unispeech-sat": transformers.UniSpeechSatConfig,
    }  # fmt: skip
    full = classes[family].from_dict(dict(config)).to_dict()
    table = {**_SAME, **(_WAVLM if family == "wavlm" else {})}
    native = {name: full[hugging] for name, (hugging, _) in table.items()}
    layers = zip(full["conv_dim"], full["conv_kernel"], full["conv_stride"], strict=True)
    native["extractor_mode"] = {hugging: name for name, hugging in _NORMS.items()}[str(full["feat_extract_norm"])]
    native["conv_feature_layers"] = str([tuple(layer) for layer in layers])
    if family in ("wavlm", "unispeech-sat"):
        native |= dict.fromkeys(("relative_position_embedding", "gru_rel_pos"), family == "wavlm")
    if family == "hubert":
        native["label_rate"] = 50.0
    if family == "wav2vec2":
        native["quantize_targets"] = False  # its quantiser is no part of an upstream
    return native


def decoar2_config(weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """`config.json` of DeCoAR 2.0, whose file holds weights alone; the rest is fixed in s3prl's `decoar2.py`.

    Raises:
        SpeechFTError: tensors that tell the sizes are missing.
    """
    try:
        dim, bands = weights["post_extract_proj.weight"].shape
        _, per_group, kernel = weights["encoder.pos_conv.0.weight_v"].shape
        feed_forward = weights["encoder.layers.0.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise SpeechFTError(f"{source} lacks a tensor of DeCoAR 2.0 ({error})", "it is damaged or foreign") from error
    layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}
    return {
        "model_type": "decoar2", "num_mel_bins": bands, "hidden_size": dim, "num_hidden_layers": len(layers),
        "num_attention_heads": dim // 64, "intermediate_size": feed_forward, "hidden_act": "gelu",
        "num_conv_pos_embeddings": kernel, "num_conv_pos_embedding_groups": dim // per_group,
        "hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0, "feat_proj_dropout": 0.1,
        "layerdrop": 0.05, "do_stable_layer_norm": False, "layer_norm_eps": 1e-5,
    }  # fmt: skip
