"""Very small models as s3prl's own modules save them."""

from __future__ import annotations

from pathlib import Path

import torch

from speechft.superb import compat

MODEL = {
    "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 2,
    "conv_feature_layers": "[(24,20,16)] + [(24,8,5)] * 1 + [(24,8,4)]", "conv_pos": 16, "conv_pos_groups": 4,
    "dropout": 0.1, "encoder_layerdrop": 0.05, "final_dim": 16,
}  # fmt: skip


def native_file(folder, family, norm, **options):
    """What s3prl's own modules save, with random weights."""
    compat.install()
    torch.manual_seed(0)
    config = {**MODEL, "extractor_mode": norm, "layer_norm_first": norm == "layer_norm",
              "conv_bias": norm == "layer_norm", **options}  # fmt: skip
    normalize = norm == "layer_norm"
    if family == "wavlm":
        from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

        config |= {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 40, "max_distance": 100,
                   "normalize": normalize}  # fmt: skip
        del config["final_dim"]
        content = {"cfg": config, "model": WavLM(WavLMConfig(config)).state_dict()}
    elif family == "hubert":
        from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

        config["label_rate"] = 50.0
        task, symbols = {"normalize": normalize, "sample_rate": 16000, "label_rate": 50.0}, [["0", "1", "2", "3"]]
        model = HubertModel(HubertConfig(**config), HubertPretrainingConfig(**task), symbols)
        content = {"task_cfg": task, "model_cfg": config, "model_weight": model.state_dict(),
                   "dictionaries_symbols": symbols}  # fmt: skip
    else:
        from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

        config |= {"quantize_targets": True, "latent_vars": 4}
        content = {"task_cfg": {"normalize": normalize}, "model_cfg": config,
                   "model_weight": Wav2Vec2Model(Wav2Vec2Config(**config)).state_dict()}  # fmt: skip
    file = folder / f"{family}-{norm}.pt"
    for weight in (content.get("model_weight") or content["model"]).values():
        if weight.is_floating_point() and weight.dim() == 1:
            weight.add_(0.05 * torch.randn_like(weight))  # norms and biases away from one and zero
    torch.save(content, file)
    return file


DECOAR2 = {"encoder_embed_dim": 128, "encoder_layers": 2, "encoder_ffn_embed_dim": 96, "encoder_attention_heads": 2,
         "conv_pos": 16, "conv_pos_groups": 4}  # fmt: skip


def save_decoar2(file: Path) -> Path:
    """DeCoAR 2.0 at the sizes that s3prl's module has now, with a weight of the pre-training that s3prl ignores."""
    compat.install()
    from s3prl.upstream.decoar2 import decoar2

    torch.manual_seed(0)
    torch.save({"model": {**decoar2.Decoar2().state_dict(), "quantizer.vars": torch.ones(3)}}, file)
    return file
