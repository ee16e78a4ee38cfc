"""Padded batches as other libraries compute them, against those libraries."""

import re

import pytest
import torch
import transformers
from small import save_upstream

from speechft.errors import UsageError
from speechft.superb import compat
from speechft.upstreams.load import load_upstream

FAMILIES = ("hubert", "wav2vec2", "wavlm", "unispeech-sat", "sew")
CASES = [*((family, norm) for family in FAMILIES for norm in ("group", "layer")), ("data2vec-audio", "layer")]
LENGTHS = ((9000, 5123), (16000, 8650, 7999), (4100, 4000), (12345, 2000))


def noise(lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in lengths]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("family", "norm"), CASES)
def test_as_transformers_computes_them(family, norm, masked, tmp_path):
    """Its own feature extractor pads, and makes a mask or not."""
    folder = save_upstream(tmp_path / "m", family, norm)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=masked)
    extractor.save_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    ours = load_upstream({"name": "m", "source": str(folder), "normalize": True, "padding": "huggingface"})
    assert ours.identity.padding == ("huggingface" if masked else "huggingface-unmasked")
    apart = 0.0
    for lengths in LENGTHS:
        waves = noise(lengths)
        waves[-1] *= 0.003  # so quiet that it matters what is added to the variance
        inputs = extractor([wave.numpy() for wave in waves], sampling_rate=16_000, padding=True, return_tensors="pt")
        assert ("attention_mask" in inputs) == masked
        with torch.inference_mode():
            reference = theirs(**inputs).last_hidden_state
            mine = ours(waves)
            own = load_upstream(folder, normalize=True)(waves)
        for row, frames in enumerate(mine.frames.tolist()):
            assert torch.allclose(mine.last[row, :frames], reference[row, :frames], atol=1e-4), (lengths, row)
            apart = max(apart, float((own.last[row, :frames] - mine.last[row, :frames]).abs().max()))
    if norm == "group" or not masked:
        assert apart > 1e-3  # the option makes a difference


def test_the_mask_travels_with_the_checkpoint(tmp_path):
    """An identity says what was done; it can be asked for by that name; a written folder keeps it."""
    from speechft.checkpoints.folder import write_folder

    folder = save_upstream(tmp_path / "m")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "return_attention_mask": false}')
    ours = load_upstream({"name": "m", "source": str(folder), "padding": "huggingface"})
    again = load_upstream({"name": "m", "source": str(folder), "padding": ours.identity.padding})
    assert again.identity == ours.identity and ours.identity.padding == "huggingface-unmasked"
    assert len({load_upstream({"name": "m", "source": str(folder), "padding": padding}).identity.key
                for padding in ("own", "s3prl", "huggingface")}) == 3  # fmt: skip
    written = write_folder(tmp_path / "ours", ours.checkpoint())
    moved = load_upstream({"name": "m", "source": str(written), "padding": "huggingface"})
    assert moved.identity.padding == "huggingface-unmasked"


def test_what_is_refused(tmp_path):
    folder = save_upstream(tmp_path / "sew", "sew")
    with pytest.raises(UsageError, match="s3prl has no SEW"):
        load_upstream({"name": "m", "source": str(folder), "padding": "s3prl"})
    with pytest.raises(UsageError, match=r"unknown upstream.padding 'fairseq'; known: own, s3prl, huggingface"):
        load_upstream({"name": "m", "source": str(folder), "padding": "fairseq"})
    hubert = save_upstream(tmp_path / "hubert")
    with pytest.raises(UsageError, match=r"with upstream\.padding=huggingface the CNN's output depends on the batch"):
        load_upstream({"name": "m", "source": str(hubert), "padding": "huggingface"}).keep_cnn("memory", 1.0)


def s3prls_data2vec(folder):
    """s3prl's module with the weights of a folder; its names are fairseq's, written here from its own source."""
    compat.install()
    from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel

    model = Data2VecAudioModel(Data2VecAudioConfig(
        extractor_mode="layer_norm", encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=48,
        encoder_attention_heads=2, conv_feature_layers="[(24,20,16),(24,8,5),(24,8,4)]", conv_bias=True,
        pos_conv_depth=2, conv_pos=14, conv_pos_groups=4,
    )).eval()  # fmt: skip
    model.final_proj = None
    spelled = {}
    for name, tensor in transformers.Data2VecAudioModel.from_pretrained(folder).state_dict().items():
        for pattern, native in (
            (r"masked_spec_embed", "mask_emb"), (r"feature_projection\.layer_norm", "layer_norm"),
            (r"feature_projection\.projection", "post_extract_proj"), (r"(conv_layers\.\d+)\.conv\.", r"\1.0."),
            (r"(conv_layers\.\d+)\.layer_norm\.", r"\1.2.1."),
            (r"pos_conv_embed\.layers\.(\d+)\.conv", r"pos_conv.\1.0"),
            (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"), (r"attention\.", "self_attn."),
            (r"feed_forward\.intermediate_dense", "fc1"), (r"feed_forward\.output_dense", "fc2"),
        ):  # fmt: skip
            name = re.sub(pattern, native, name)
        spelled[name] = tensor
    model.load_state_dict(spelled)
    return model


def test_data2vec_as_s3prl_computes_it(tmp_path):
    folder = save_upstream(tmp_path / "m", "data2vec-audio", "layer")
    theirs, apart = s3prls_data2vec(folder), 0.0
    ours = load_upstream({"name": "m", "source": str(folder), "padding": "s3prl"})
    for lengths in LENGTHS:
        waves = noise(lengths)
        mask = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
        with torch.inference_mode():
            reference = theirs.extract_features(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), mask)["x"]
            mine, own = ours(waves), load_upstream(folder)(waves)
        for row, frames in enumerate(mine.frames.tolist()):
            assert torch.allclose(mine.last[row, :frames], reference[row, :frames], atol=1e-4), (lengths, row)
            apart = max(apart, float((own.last[row, :frames] - mine.last[row, :frames]).abs().max()))
    assert apart > 1e-4  # positions hear padding there
