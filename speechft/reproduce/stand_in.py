"""Upstreams of the published architectures with random weights, for checks and measurements before any is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.errors import UsageError

if TYPE_CHECKING:
    from speechft.upstreams.base import Upstream

_BASE: dict[str, dict[str, Any]] = {
    # transformers' defaults are the base models' sizes
    "hubert_base": {"model_type": "hubert"},
    "wav2vec2_base": {"model_type": "wav2vec2"},
    "wavlm_base_plus": {"model_type": "wavlm"},
    # s3prl/upstream/decoar2/decoar2.py
    "decoar2": {
        "model_type": "decoar2", "num_mel_bins": 80, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16, "hidden_dropout": 0.1, "attention_dropout": 0.1,
        "activation_dropout": 0.0, "feat_proj_dropout": 0.1, "do_stable_layer_norm": False, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
"""Choice of `configs/upstream` -> its `config.json`."""


def stand_in(settings: Mapping[str, Any]) -> Upstream:
    """An upstream as large as the one that is meant; the very one where its checkpoint is on this machine by path.

    Args:
        settings: the section `upstream` of a configuration.

    Raises:
        UsageError: neither a path nor one of the paper's four.
        SpeechFTError: a checkpoint that cannot be read.
    """
    from speechft.checkpoints.folder import Checkpoint
    from speechft.upstreams import decoar2, speech_encoder
    from speechft.upstreams.load import load_upstream

    name, source = str(settings["name"]), str(settings["source"] or settings["name"])
    if Path(source).expanduser().exists():
        return load_upstream(settings)
    if name not in _BASE:
        raise UsageError(f"the size of {name} is not known without its checkpoint", f"known: {', '.join(_BASE)}")
    empty = Checkpoint(_BASE[name], {"do_normalize": False}, {})
    if name == "decoar2":
        return decoar2.build(empty, name, source, random_seed=0)
    return speech_encoder.build(empty, name, source, settings.get("normalize"), 0, settings.get("dropout"))
