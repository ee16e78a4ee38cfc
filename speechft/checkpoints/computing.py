"""What of a configuration changes what a model computes, though not the shapes of its weights."""

from __future__ import annotations

from typing import Any

from speechft.files import sha256_json

COMPUTING = (
    "hidden_act", "feat_extract_activation", "feat_extract_norm", "do_stable_layer_norm", "num_attention_heads",
    "conv_kernel", "conv_stride", "num_conv_pos_embedding_groups", "layer_norm_eps", "squeeze_factor", "num_buckets",
    "max_bucket_distance", "conv_pos_batch_norm", "feat_proj_layer_norm", "activation_function",
    "encoder_attention_heads", "scale_embedding", "num_mel_bins", "own",
)  # fmt: skip


def computing_hash(config: Any) -> str:
    """Of a configuration's values as the model has them, so that what is left out and what is the default are the same.

    Args:
        config: with the values as attributes, as transformers' configurations have them.
    """
    values = {key: getattr(config, key) for key in COMPUTING if hasattr(config, key)}
    return sha256_json({key: list(value) if isinstance(value, tuple) else value for key, value in values.items()})[:12]
