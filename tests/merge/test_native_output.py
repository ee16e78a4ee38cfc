"""Plain s3prl loads what merging writes, and gives the same features."""

import json

import pytest
import torch
from native_models import native_file
from safetensors.torch import load_file
from small import save_upstream, speechft
from transformers import AutoModel, WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechft.checkpoints.folder import HEAD, write_folder
from speechft.checkpoints.native import HUB_ENTRIES, read_native
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.superb import compat
from speechft.upstreams.load import load_upstream


def tuned(source, folder):
    """What fine-tuning leaves: the upstream's weights moved, no pre-training head."""
    upstream = load_upstream(source)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return write_folder(folder, upstream.checkpoint())


def same_features(folder):
    """Our features of the folder against those of s3prl's own module from the file beside it."""
    compat.install()
    import s3prl.hub

    entry = json.loads((folder / "merge.json").read_text())["s3prl_hub"]
    assert f"s3prl.hub.{entry}" in (folder / "README.md").read_text()
    theirs = getattr(s3prl.hub, entry)(str(folder / "s3prl.pt")).eval()
    for seed, samples in enumerate((9000, 5123)):
        wave = 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + 0.1
        with torch.inference_mode():
            mine, reference = load_upstream(folder)([wave]).states, theirs([wave])["hidden_states"]
        assert len(mine) == len(reference)
        for a, b in zip(mine, reference, strict=True):
            assert torch.allclose(a, b[:, : a.shape[1]], atol=1e-4)
    return entry


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm"])
def test_from_hugging_face_folders(family, norm, tmp_path):
    base = save_upstream(tmp_path / "base", family, norm)
    other = tuned(base, tmp_path / "tuned")
    for model in merge(base, [other], [0.25, 1.0], out=tmp_path / "merged", to="s3prl"):
        assert same_features(model.folder) == HUB_ENTRIES[family]


def test_decoar2(decoar2_file, tmp_path):
    (model,) = merge(decoar2_file, [tuned(decoar2_file, tmp_path / "tuned")], [0.5], out=tmp_path / "merged")
    assert same_features(model.folder) == "decoar2_custom"
    extra = torch.load(model.folder / "s3prl.pt", weights_only=True)["model"]["quantizer.vars"]
    assert torch.equal(extra, torch.ones(3))  # the head stays the pre-trained model's


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm"])
def test_from_a_native_file_the_head_and_the_configuration_are_kept(family, tmp_path):
    file = native_file(tmp_path, family, "default")
    (model,) = merge(file, [tuned(file, tmp_path / "tuned")], [0.5], out=tmp_path / "merged", to="s3prl")
    same_features(model.folder)
    before, after = read_native(file), read_native(model.folder / "s3prl.pt")
    assert after.native["model_cfg"].items() >= before.native["model_cfg"].items() - {("normalize", None)}
    assert before.head.keys() == after.head.keys()
    assert all(torch.equal(before.head[name], after.head[name]) for name in before.head)
    assert (model.folder / HEAD).is_file() == bool(before.head)


def test_what_is_written_unasked(tmp_path):
    """What s3prl reads from the folder needs no second file."""
    for family, expected in (("hubert", False), ("wavlm", True), ("unispeech-sat", True), ("sew", False)):
        base = save_upstream(tmp_path / family, family)
        other = tuned(base, tmp_path / f"{family}-tuned")
        (usual,) = merge(base, [other], out=tmp_path / f"{family}-usual")
        (folder_only,) = merge(base, [other], out=tmp_path / f"{family}-hf", to="hf")
        assert (usual.folder / "s3prl.pt").is_file() == expected
        assert not (folder_only.folder / "s3prl.pt").exists()
        record = json.loads((usual.folder / "merge.json").read_text())
        assert (record["s3prl_hub"] is not None) == expected


def test_what_s3prl_cannot_hold(tmp_path, capfd):
    sew = save_upstream(tmp_path / "sew", "sew")
    with pytest.raises(UsageError, match=r"no s3prl format \(sew\); known: hubert"):
        merge(sew, [tuned(sew, tmp_path / "sew-tuned")], out=tmp_path / "merged", to="s3prl")
    assert not (tmp_path / "merged").exists()
    odd = save_upstream(tmp_path / "odd", "wavlm", feat_extract_activation="relu")
    other = tuned(odd, tmp_path / "odd-tuned")
    with pytest.raises(SpeechFTError, match=r"s3prl's wavlm cannot compute .*feat_extract_activation"):
        merge(odd, [other], out=tmp_path / "asked", to="s3prl")
    assert not list((tmp_path / "asked").glob("*"))
    (model,) = merge(odd, [other], out=tmp_path / "unasked")
    assert not (model.folder / "s3prl.pt").exists() and "no s3prl.pt is written" in capfd.readouterr().err


def test_the_command(tmp_path):
    base = save_upstream(tmp_path / "base")
    other = tuned(base, tmp_path / "tuned")
    done = speechft("merge", "--pretrained", base, "--finetuned", other, "--to", "s3prl", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert same_features(tmp_path / "out" / "alpha-0.25") == "hubert_custom"


@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_plain_s3prl_reads_the_folder_itself(family, tmp_path):
    """Without `s3prl.pt`, through s3prl's upstreams for Hugging Face folders."""
    compat.install()
    import s3prl.hub

    base = save_upstream(tmp_path / "base", family)
    (model,) = merge(base, [tuned(base, tmp_path / "tuned")], [0.25], out=tmp_path / "merged", to="hf")
    theirs = getattr(s3prl.hub, f"hf_{family}_custom")(str(model.folder)).eval()
    wave = 0.3 * torch.randn(9000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mine, reference = load_upstream(model.folder)([wave]).states, theirs([wave])["hidden_states"]
    assert len(mine) == len(reference)
    for a, b in zip(mine, reference, strict=True):
        assert torch.allclose(a, b[:, : a.shape[1]], atol=1e-4)


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew"])
def test_plain_transformers_loads_it_as_its_card_says(family, tmp_path):
    base = save_upstream(tmp_path / "base", family)
    (model,) = merge(base, [tuned(base, tmp_path / "tuned")], [0.25], out=tmp_path / "merged", to="hf")
    assert "transformers.AutoModel.from_pretrained" in (model.folder / "README.md").read_text()
    wave = 0.3 * torch.randn(9000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = load_upstream(model.folder)([wave]).last
        theirs = AutoModel.from_pretrained(model.folder).eval()(wave[None]).last_hidden_state
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("whole", [False, True])
def test_a_whisper_encoder_is_loaded_as_one(whisper_folder, tmp_path, whole):
    """`AutoModel` would make a whole Whisper of it, most of it random."""
    base = whisper_folder
    if whole:
        model = WhisperModel(WhisperConfig.from_pretrained(whisper_folder, decoder_layers=1, decoder_attention_heads=4))
        model.save_pretrained(tmp_path / "whole")
        WhisperFeatureExtractor().save_pretrained(tmp_path / "whole")
        base = tmp_path / "whole"
    other = tuned(base, tmp_path / "tuned")
    (model,) = merge(base, [other], [0.25], out=tmp_path / "merged")
    assert json.loads((model.folder / "config.json").read_text())["architectures"] == ["WhisperEncoder"]
    said = (model.folder / "README.md").read_text()
    assert "WhisperEncoder.from_pretrained" in said and "AutoModel.from_pretrained" not in said
    assert "`AutoModel` is not the way" in said
    encoder, told = WhisperEncoder.from_pretrained(model.folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    written = load_file(model.folder / "model.safetensors")
    assert encoder.state_dict().keys() == written.keys()
    assert all(torch.equal(value, written[name]) for name, value in encoder.state_dict().items())
