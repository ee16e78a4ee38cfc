"""Parts by name are the parts by parameter that upstreams themselves tell."""

import pytest
from small import save_upstream

from speechft.checkpoints.parts import depths_of, norm_last, order_of, parts_of
from speechft.upstreams.load import load_upstream


def same_parts(upstream):
    """But for Whisper's positions, which are a place in a file and never train."""
    names = {id(parameter): name for name, parameter in upstream.model.named_parameters()}
    config = upstream.model.config.to_dict() if hasattr(upstream.model, "config") else {}
    told = {names[id(one)]: part for part, group in upstream.parts().items() for one in group}
    placed = {
        name: part
        for name, part in parts_of(names.values(), norm_last(config)).items()
        if name != "embed_positions.weight"
    }
    assert placed == told
    assert told


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew"])
def test_speech_encoders(family, tmp_path):
    same_parts(load_upstream(save_upstream(tmp_path / family, family)))


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm", "unispeech-sat"])
def test_large_models_have_their_norm_after_the_layers(family, tmp_path):
    """transformers' `...EncoderStableLayerNorm` applies it to what the last layer gives."""
    upstream = load_upstream(save_upstream(tmp_path / family, family, do_stable_layer_norm=True))
    same_parts(upstream)
    assert len(upstream.parts()["layer_norm"]) == 2
    names = [name for name, _ in upstream.model.named_parameters()]
    assert depths_of(names, last_norm=True)["encoder.layer_norm.weight"] == 1.0
    assert depths_of(names)["encoder.layer_norm.weight"] == 0.0


def test_parts_in_the_order_of_the_data_flow():
    parts = ["upsample", "layers.10", "layers.2", "position", "cnn", "layer_norm", "projection"]
    assert sorted(parts, key=order_of) == [
        "cnn", "projection", "position", "layers.2", "layers.10", "layer_norm", "upsample",
    ]  # fmt: skip


def test_whisper_and_decoar2(whisper_folder, decoar2_file):
    same_parts(load_upstream(whisper_folder))
    same_parts(load_upstream(decoar2_file))


def test_depth():
    names = ["feature_extractor.conv_layers.0.conv.weight", *[f"encoder.layers.{i}.x" for i in range(5)]]
    assert list(depths_of(names).values()) == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    assert depths_of(["encoder.layers.0.x"]) == {"encoder.layers.0.x": 0.0}
    assert depths_of(["embed_positions.weight", "layers.0.x", "layer_norm.bias"])["layer_norm.bias"] == 1.0
