"""Native files against s3prl's own modules: the same features, and the same bytes after a round trip."""

import os
import pickle

import pytest
import torch
from native_models import native_file
from small import save_upstream

from speechft.checkpoints.convert import convert
from speechft.checkpoints.folder import read_folder, write_folder
from speechft.checkpoints.native import read_native
from speechft.checkpoints.native_config import convolutions
from speechft.checkpoints.tensor_file import SafetensorsReader
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.superb import compat
from speechft.upstreams.load import load_upstream

# family, norm of the CNN, transformer with stable layer norm
CASES = [(family, norm, norm == "layer_norm") for family in ("hubert", "wav2vec2", "wavlm")
         for norm in ("default", "layer_norm")]  # fmt: skip
CASES += [("wav2vec2", "default", True), ("wav2vec2", "layer_norm", False), ("hubert", "layer_norm", False)]


def hub(family, file):
    compat.install()
    import s3prl.hub

    return {"hubert": s3prl.hub.hubert_custom, "wav2vec2": s3prl.hub.wav2vec2_custom, "wavlm": s3prl.hub.wavlm_local}[
        family
    ](str(file)).eval()


@pytest.fixture(scope="module", params=CASES, ids=["-".join(map(str, case)) for case in CASES])
def native(request, tmp_path_factory):
    family, norm, stable = request.param
    return family, norm, native_file(tmp_path_factory.mktemp("native"), family, norm, layer_norm_first=stable)


def waves():
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in (9000, 5123)]


def test_features_equal_s3prls_module(native):
    family, norm, file = native
    ours, theirs = load_upstream(file), hub(family, file)
    assert ours.identity.normalize == (norm == "layer_norm")
    for wave in waves():
        with torch.inference_mode():
            mine, reference = ours([wave]).states, theirs([wave])["hidden_states"]
        assert len(mine) == len(reference) == 3
        for layer, (a, b) in enumerate(zip(mine, reference, strict=True)):
            assert torch.allclose(a, b[:, : a.shape[1]], atol=1e-4), (family, layer, float((a - b).abs().max()))


BASE = {
    "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", "conv_pos": 128, "conv_pos_groups": 16,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm"])
def test_features_equal_s3prls_module_at_base_size(family, tmp_path):
    file = native_file(tmp_path, family, "default", **BASE)
    theirs, settings = hub(family, file), {"name": "x", "source": str(file)}
    ours = load_upstream({**settings, "padding": "s3prl"})
    for batch in (waves()[:1], [torch.cat(waves() * 2), *waves()]):
        with torch.inference_mode():
            mine, reference = ours(batch), theirs(batch)["hidden_states"]
        assert len(mine.states) == len(reference) == 13
        for row, frames in enumerate(mine.frames.tolist()):
            for layer, (a, b) in enumerate(zip(mine.states, reference, strict=True)):
                assert torch.allclose(a[row, :frames], b[row, :frames], atol=1e-4), (layer, row)


def test_padded_batches_equal_s3prls_module(native):
    """With `padding: s3prl`; without it base models differ, for there s3prl's depend on the rest of the batch."""
    family, norm, file = native
    settings = {"name": "x", "source": str(file)}
    theirs = hub(family, file)
    for lengths in ((9000, 5123), (16000, 8650, 7999), (4100, 4000), (12345, 2000)):
        generator = torch.Generator().manual_seed(sum(lengths))
        batch = [0.3 * torch.randn(length, generator=generator) + 0.1 for length in lengths]
        with torch.inference_mode():
            reference = theirs(batch)["hidden_states"]
            like = load_upstream({**settings, "padding": "s3prl"})(batch)
            own = load_upstream(settings)(batch)
        for row, frames in enumerate(like.frames.tolist()):
            for a, b in zip(like.states, reference, strict=True):
                assert torch.allclose(a[row, :frames], b[row, :frames], atol=1e-4), (lengths, row)
        if norm == "default":
            frames = int(own.frames[1])
            assert (own.last[1, :frames] - reference[-1][1, :frames]).abs().max() > 1e-3


def test_native_to_hf_to_native_is_bit_equal(native, tmp_path):
    _, _, file = native
    folder = convert(file, tmp_path / "hf", "hf")
    back = convert(folder, tmp_path / "back.pt", "s3prl")
    first, second = (torch.load(path, weights_only=True) for path in (file, back))
    assert first.keys() == second.keys()
    for key in first:
        if key in ("model", "model_weight"):
            assert first[key].keys() == second[key].keys()
            assert all(torch.equal(first[key][name], second[key][name]) for name in first[key])
        else:
            assert first[key] == second[key] or dict(first[key]).items() <= dict(second[key]).items()
    assert load_upstream(folder).identity.sha256 == load_upstream(file).identity.sha256


@pytest.mark.parametrize(
    ("family", "norm"), [(f, n) for f in ("hubert", "wav2vec2", "wavlm") for n in ("group", "layer")]
)
def test_s3prls_hub_loads_what_is_written_from_a_hugging_face_folder(family, norm, tmp_path):
    """No pre-training head there: s3prl's strict loading must still succeed, and the features be the same."""
    folder = save_upstream(tmp_path / "m", family, norm)
    file = convert(folder, tmp_path / "m.pt", "s3prl")
    ours, theirs = load_upstream(folder), hub(family, file)
    wave = waves()[0]
    with torch.inference_mode():
        for a, b in zip(ours([wave]).states, theirs([wave])["hidden_states"], strict=True):
            assert torch.allclose(a, b[:, : a.shape[1]], atol=1e-4)


def test_equal_widths_have_no_projection(tmp_path):
    file = native_file(tmp_path, "hubert", "default", conv_feature_layers="[(32,20,16),(32,8,5),(32,8,4)]")
    folder = convert(file, tmp_path / "hf", "hf")
    assert torch.equal(read_folder(folder).state["feature_projection.projection.weight"], torch.eye(32))
    back = convert(folder, tmp_path / "back.pt", "s3prl")
    assert "post_extract_proj.weight" not in torch.load(back, weights_only=True)["model_weight"]
    with torch.inference_mode():
        mine, reference = load_upstream(file)(waves()[:1]).last, hub("hubert", file)(waves()[:1])["hidden_states"][-1]
    assert torch.allclose(mine, reference, atol=1e-4)


@pytest.mark.parametrize(("content", "message"), [
    (b"I am a letter\n" * 9, "is a text, no checkpoint; give the file of the weights"),
    (b"Dear reader", "is a text, no checkpoint"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "is Git LFS's pointer .* git lfs pull"),
    (b"", "is no readable checkpoint"), (b"PK\x03\x04" + b"ab" * 40, "is no readable checkpoint"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["m.pt", "pytorch_model.bin", "model.safetensors"])
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, content, message, name):
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpeechFTError, match=message):
        read_native(tmp_path / name) if name == "m.pt" else read_folder(tmp_path)
    if name == "model.safetensors":
        with pytest.raises(SpeechFTError, match=message):
            SafetensorsReader(tmp_path / name)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_malicious_file_is_refused_and_does_nothing(tmp_path):
    content = {"cfg": Malicious(tmp_path / "made"), "model": {}}
    torch.save(content, tmp_path / "zip.pt")
    with pytest.raises(SpeechFTError, match=r"holds more than weights \(posix.system\)"):
        read_native(tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(SpeechFTError, match=r"not written.*could run code"):
        read_native(tmp_path / "bare.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text('{"model_type": "hubert"}')
    torch.save(content, tmp_path / "folder/pytorch_model.bin")
    with pytest.raises(SpeechFTError, match=r"holds more than weights \(posix.system\).*refused"):
        read_folder(tmp_path / "folder")
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(Malicious(tmp_path / "made")))  # the test's own check: unpickled freely, it does it
    assert (tmp_path / "made").exists()


def test_native_files_merge_like_folders(tmp_path):
    """What the paper's users have: a pre-trained `.pt` file, and its fine-tuned folder."""
    file = native_file(tmp_path, "wavlm", "default")
    tuned = read_native(file)
    tuned.state = {name: tensor + 0.5 for name, tensor in tuned.state.items()}
    write_folder(tmp_path / "tuned", tuned)
    (none, quarter) = merge(file, [tmp_path / "tuned"], [0.0, 0.25], out=tmp_path / "merged")
    before = read_native(file).state
    kept, moved = read_folder(none.folder).state, read_folder(quarter.folder).state
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert all(torch.allclose(moved[name], before[name] + 0.125, atol=1e-6) for name in before)


def test_bad_files_are_explained(tmp_path):
    whole = native_file(tmp_path, "hubert", "default")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SpeechFTError, match="no readable checkpoint"):
        read_native(cut)
    content = torch.load(whole, weights_only=True)
    torch.save(
        {**content, "model_weight": {**content["model_weight"], "odd.weight": torch.zeros(1)}}, tmp_path / "o.pt"
    )
    with pytest.raises(SpeechFTError, match=r"1 tensors that no hubert has \(odd.weight\)"):
        read_native(tmp_path / "o.pt")
    del content["model_weight"]["layer_norm.bias"]
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(SpeechFTError, match=r"1 missing \(feature_projection.layer_norm.bias\)"):
        load_upstream(tmp_path / "m.pt")
    torch.save({"Upstream": {}, "Step": 3}, tmp_path / "other.pt")
    with pytest.raises(SpeechFTError, match="no known layout"):
        read_native(tmp_path / "other.pt")
    with pytest.raises(UsageError, match="exists already"):
        convert(whole, cut, "s3prl")


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "[(1,2)]", "[(1,2,3)] * 10**9", "", "[x]", "[]"])
def test_convolutions_are_parsed_not_run(text):
    with pytest.raises(SpeechFTError, match="no list of convolutions"):
        convolutions(text)


def test_convolutions_of_published_models():
    assert convolutions("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2") == (
        [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2
    )


def test_fairseq_s_omegaconf_configurations_are_read(tmp_path):
    """A real `DictConfig` in the file, as fairseq's hydra-era checkpoints hold one."""
    from omegaconf import OmegaConf

    from speechft.checkpoints.unpickle import load_untrusted, plain

    config = {"task": {"normalize": False, "sizes": [1, 2]}, "model": {"name": "x", "rate": 0.5, "none": None}}
    torch.save({"cfg": OmegaConf.create(config), "model": {"w": torch.ones(2)}}, tmp_path / "cfg.pt")
    content = load_untrusted(tmp_path / "cfg.pt")
    assert plain(content["cfg"]) == config and torch.equal(content["model"]["w"], torch.ones(2))


@pytest.mark.parametrize("name", [
    "UniSpeechSatForPreTraining", "UniSpeechSatForXVector", "WavLMForXVector", "HubertForCTC", "Wav2Vec2ForPreTraining",
    "WavLMForSequenceClassification",
])  # fmt: skip
def test_heads_of_transformers_are_set_aside(tmp_path, name):
    import transformers

    model_class = getattr(transformers, name)
    config = model_class.config_class(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(24, 24),
        conv_kernel=(20, 8), conv_stride=(16, 20), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        codevector_dim=16, proj_codevector_dim=16, tdnn_dim=(16, 16, 16, 16, 16), xvector_output_dim=16,
        use_weighted_layer_sum=True,
    )  # fmt: skip
    model = model_class(config).eval()
    model.save_pretrained(tmp_path / "model")
    upstream = load_upstream(tmp_path / "model", normalize=False)
    wave = torch.randn(4000)
    with torch.no_grad():
        theirs = model.base_model(wave[None]).last_hidden_state
        assert torch.allclose(upstream([wave]).last, theirs, atol=1e-5)


def test_a_published_model_keeps_its_own_convention_when_converted(tmp_path, monkeypatch, cli):
    """The hub's file of base models says `do_normalize: true`; published numbers were made without."""
    from speechft.upstreams import load

    folder = save_upstream(tmp_path / "hub")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    original = load.locate
    monkeypatch.setattr(load, "locate", lambda source: folder if source == "facebook/hubert-base-ls960" else
                        folder if source == "hubert_base" else original(source))  # fmt: skip
    assert load_upstream("hubert_base").identity.normalize is False
    assert load_upstream("facebook/hubert-base-ls960").identity.normalize is False
    assert load_upstream(folder, normalize=True).identity.normalize is True

    from speechft.cli.convert import run

    for to, name in (("hf", "folder"), ("s3prl", "native.pt")):
        run(["hubert_base", str(tmp_path / name), "--to", to])
        assert load_upstream(tmp_path / name).identity.normalize is False


def test_a_file_of_safetensors_is_called_what_it_is(upstream_folder):
    from speechft.upstreams.load import load_upstream

    with pytest.raises(
        SpeechFTError, match=r"model\.safetensors is a safetensors file; give the folder that it lies in"
    ):
        load_upstream(upstream_folder / "model.safetensors")
