"""θ0's head of the pre-training stays beside the merged upstream, where transformers finds both."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    UniSpeechConfig,
    UniSpeechForPreTraining,
    UniSpeechSatConfig,
    UniSpeechSatForPreTraining,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
)

from speechft.checkpoints.convert import convert
from speechft.errors import SpeechFTError
from speechft.merge.merge import merge
from speechft.merge.record import read_record
from speechft.upstreams.load import load_upstream

TINY = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "conv_dim": [16, 16], "conv_kernel": [10, 4], "conv_stride": [20, 16], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "codevector_dim": 8, "proj_codevector_dim": 8,
    "num_codevectors_per_group": 4,
}  # fmt: skip


def whole(kind, config, folder, seed=0):
    torch.manual_seed(seed)
    model = kind(config(**TINY))
    model.save_pretrained(folder)
    return model


def moved(model, folder):
    """A fine-tuned upstream of it, without a head."""
    upstream = getattr(model, model.base_model_prefix)
    before = {name: value.clone() for name, value in upstream.state_dict().items()}
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    upstream.save_pretrained(folder)
    return before, {name: value.clone() for name, value in upstream.state_dict().items()}


@pytest.mark.parametrize("stored", ["safetensors", "bin", "half"])
@pytest.mark.parametrize(
    ("kind", "config"), [(Wav2Vec2ForPreTraining, Wav2Vec2Config), (UniSpeechSatForPreTraining, UniSpeechSatConfig)]
)
def test_transformers_loads_the_merge_with_the_head(kind, config, stored, tmp_path):
    base = tmp_path / "base"
    model = whole(kind, config, base)
    heads = {
        name: value.clone() for name, value in model.state_dict().items()
        if not name.startswith(model.base_model_prefix + ".")
    }  # fmt: skip
    if stored == "bin":  # as facebook/wav2vec2-base lies on the Hub
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    elif stored == "half":
        model.half().save_pretrained(base)
        heads = {name: value.half().float() for name, value in heads.items()}
        model.float()
    before, after = moved(model, tmp_path / "tuned")
    (merged,) = merge(base, [tmp_path / "tuned"], [0.25], out=tmp_path / "merged")
    found, report = kind.from_pretrained(merged.folder, output_loading_info=True, dtype=torch.float32)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    state = found.state_dict()
    for name, value in heads.items():
        assert torch.equal(state[name], value), name
    prefix = found.base_model_prefix + "."
    assert {name for name in state if name.startswith(prefix)} == {prefix + name for name in before}
    for name, value in before.items():
        expected = 0.75 * value + 0.25 * after[name]
        assert torch.allclose(state[prefix + name], expected, atol=1e-6), name
    assert json.loads((merged.folder / "config.json").read_text())["architectures"] == [kind.__name__]

    assert kind.__name__ + ".from_pretrained" in (merged.folder / "README.md").read_text()
    assert read_record(merged.folder)["pretraining_head"] == kind.__name__

    plain = AutoModel.from_pretrained(merged.folder).eval()
    assert plain.dtype == torch.float32  # as it is stored, whatever θ0's configuration says
    ours = load_upstream(merged.folder).eval()
    waves = torch.randn(1, 8000)
    with torch.inference_mode():
        reference = plain((waves - waves.mean()) / torch.sqrt(waves.var(unbiased=False) + 1e-7)).last_hidden_state
        assert torch.allclose(ours([waves[0]]).states[-1], reference, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_parents_stay_half(kind, tmp_path):
    model = whole(Wav2Vec2ForPreTraining, Wav2Vec2Config, tmp_path / "base").to(kind)
    model.save_pretrained(tmp_path / "base")
    moved(model, tmp_path / "tuned")
    (merged,) = merge(tmp_path / "base", [tmp_path / "tuned"], [0.25], out=tmp_path / "merged")
    assert Wav2Vec2ForPreTraining.from_pretrained(merged.folder).dtype == kind
    assert {value.dtype for value in load_file(merged.folder / "model.safetensors").values()} == {kind}


def test_converting_says_that_the_head_is_left_out(tmp_path, capsys):
    whole(Wav2Vec2ForPreTraining, Wav2Vec2Config, tmp_path / "base")
    convert(tmp_path / "base", tmp_path / "converted", "hf")
    assert "the head in" in capsys.readouterr().err
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["architectures"] == ["Wav2Vec2Model"]


def test_an_unknown_architecture_is_said_to_be_one(tmp_path):
    model = whole(UniSpeechForPreTraining, UniSpeechConfig, tmp_path / "base")
    moved(model, tmp_path / "tuned")
    with pytest.raises(SpeechFTError, match="unispeech is no architecture that speechft knows"):
        merge(tmp_path / "base", [tmp_path / "tuned"], [0.25], out=tmp_path / "merged")


def test_the_head_of_a_task_is_left_out(tmp_path):
    model = whole(Wav2Vec2ForCTC, Wav2Vec2Config, tmp_path / "base")
    moved(model, tmp_path / "tuned")
    (merged,) = merge(tmp_path / "base", [tmp_path / "tuned"], [0.25], out=tmp_path / "merged")
    assert json.loads((merged.folder / "config.json").read_text())["architectures"] == ["Wav2Vec2Model"]
    assert not [name for name in load_file(merged.folder / "model.safetensors") if "lm_head" in name]


def test_merges_of_merges_keep_it(tmp_path):
    model = whole(Wav2Vec2ForPreTraining, Wav2Vec2Config, tmp_path / "base")
    moved(model, tmp_path / "tuned")
    (first,) = merge(tmp_path / "base", [tmp_path / "tuned"], [0.5], out=tmp_path / "first")
    (second,) = merge(first.folder, [tmp_path / "tuned"], [0.5], out=tmp_path / "second", to="s3prl")
    held = load_file(second.folder / "model.safetensors")
    original = load_file(tmp_path / "base" / "model.safetensors")
    assert torch.equal(held["quantizer.codevectors"], original["quantizer.codevectors"])
    assert torch.equal(held["project_hid.weight"], original["project_hid.weight"])
