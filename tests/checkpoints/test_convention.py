"""Which normalisation a checkpoint is used with: the published models' own, whatever a folder from elsewhere says."""

import json
import shutil

import pytest
import torch
from small import save_upstream

from speechft import console
from speechft.analysis.analyze import analyze
from speechft.checkpoints.convert import as_folder, convert
from speechft.checkpoints.folder import read_folder, write_folder
from speechft.config.locate import group_names, read_group
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.superb import compat
from speechft.upstreams.describe import describe
from speechft.upstreams.load import load_upstream

TORCHAUDIO = {  # our name -> the bundle of the same original weights, which torchaudio converted by itself
    "hubert_base": "HUBERT_BASE", "hubert_large": "HUBERT_LARGE", "hubert_xlarge": "HUBERT_XLARGE",
    "wav2vec2_base": "WAV2VEC2_BASE", "wav2vec2_large_ls960": "WAV2VEC2_LARGE",
    "wav2vec2_large": "WAV2VEC2_LARGE_LV60K", "xlsr_53": "WAV2VEC2_XLSR53", "xls_r_300m": "WAV2VEC2_XLSR_300M",
    "xls_r_1b": "WAV2VEC2_XLSR_1B", "xls_r_2b": "WAV2VEC2_XLSR_2B", "wavlm_base": "WAVLM_BASE",
    "wavlm_base_plus": "WAVLM_BASE_PLUS", "wavlm_large": "WAVLM_LARGE",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHAUDIO)
def test_named_models_are_heard_as_torchaudio_hears_them(name):
    import torchaudio

    assert (
        read_group("upstream", name)["normalize"] is getattr(torchaudio.pipelines, TORCHAUDIO[name])._normalize_waveform
    )


def test_every_named_model_has_its_convention():
    # no choice, or our own file says it
    raw = ("fbank", "fbank_superb", "decoar2", "hubert_nano", "hubert_nano_random")
    for name in group_names("upstream"):
        if name not in raw and not name.startswith("whisper"):
            assert isinstance(read_group("upstream", name)["normalize"], bool), name


def from_the_hub(folder, family="hubert", norm="group", **said):
    """As transformers' own feature extractor writes the file."""
    from transformers import Wav2Vec2FeatureExtractor

    save_upstream(folder, family, norm)
    (folder / "preprocessor_config.json").unlink()
    Wav2Vec2FeatureExtractor(
        **{"do_normalize": True, "return_attention_mask": norm == "layer", **said}
    ).save_pretrained(folder)
    return folder


def told(capfd):
    """The lines about a file that is not followed (transformers draws bars there, too)."""
    return [line for line in capfd.readouterr().err.splitlines() if "do_normalize" in line]


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    monkeypatch.setattr(console, "_said", set())


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wavlm", "unispeech-sat", "sew"])
def test_base_models_are_heard_as_they_were_pre_trained(family, tmp_path, capfd):
    folder = from_the_hub(tmp_path / "m", family)
    assert load_upstream(folder).identity.normalize is False
    (said,) = told(capfd)
    assert str(folder) in said and "upstream.normalize=true" in said
    load_upstream(folder)
    assert not told(capfd)  # once is enough
    assert load_upstream(folder, normalize=True).identity.normalize is True
    assert load_upstream({"name": "x", "source": str(folder), "normalize": True}).identity.normalize is True


def test_who_asks_is_not_told(tmp_path, capfd):
    folder = from_the_hub(tmp_path / "m")
    load_upstream(folder, normalize=False)
    load_upstream(folder, normalize=True)
    assert not told(capfd)


@pytest.mark.parametrize(("family", "norm", "file", "expected"), [
    ("hubert", "layer", True, True), ("hubert", "layer", False, False), ("data2vec-audio", "layer", True, True),
    ("hubert", "group", False, False), ("hubert", "group", None, False), ("hubert", "layer", None, True),
])  # fmt: skip
def test_what_else_a_folder_says_is_followed_silently(family, norm, file, expected, tmp_path, capfd):
    folder = from_the_hub(tmp_path / "m", family, norm, do_normalize=bool(file))
    if file is None:
        (folder / "preprocessor_config.json").unlink()
    assert load_upstream(folder).identity.normalize is expected
    assert not told(capfd)


@pytest.mark.parametrize("normalize", [True, False])
def test_our_own_folders_are_followed(normalize, tmp_path, capfd):
    """What stage 1 writes is what it trained with."""
    written = write_folder(tmp_path / "ours", load_upstream(from_the_hub(tmp_path / "m"), normalize).checkpoint())
    assert load_upstream(written).identity.normalize is normalize
    assert not told(capfd)
    said = json.loads((written / "preprocessor_config.json").read_text())
    assert said["do_normalize"] is normalize and said["return_attention_mask"] is False  # the rest is the hub's


def test_our_folders_are_transformers_folders(tmp_path):
    from transformers import AutoFeatureExtractor

    written = convert(from_the_hub(tmp_path / "m"), tmp_path / "ours", "hf", normalize=True)
    extractor = AutoFeatureExtractor.from_pretrained(written)
    assert extractor.do_normalize is True and extractor.return_attention_mask is False


@pytest.mark.parametrize("asked", [None, True, False])
def test_conversion_writes_what_is_heard(asked, tmp_path, capfd):
    folder = from_the_hub(tmp_path / "m")
    heard = bool(asked)
    ours = convert(folder, tmp_path / "ours", "hf", asked)
    native = convert(folder, tmp_path / "native.pt", "s3prl", asked)
    assert len(told(capfd)) == (asked is None)
    assert torch.load(native, weights_only=True)["task_cfg"]["normalize"] is heard
    for path in (ours, native, as_folder(native)):
        assert load_upstream(path).identity.normalize is heard
    compat.install()
    import s3prl.hub

    wave = 0.3 * torch.randn(9000, generator=torch.Generator().manual_seed(0)) + 0.1
    with torch.inference_mode():
        theirs = s3prl.hub.hubert_custom(str(native)).eval()([wave])["hidden_states"][-1]
        assert torch.allclose(load_upstream(folder, normalize=asked)([wave]).last, theirs, atol=1e-4)


def test_the_convert_command(tmp_path, capfd):
    from speechft.cli.convert import run

    folder = from_the_hub(tmp_path / "m")

    def heard(source, out, *words):
        assert run([str(source), str(tmp_path / out), "--to", "hf", *words]) == 0
        return load_upstream(tmp_path / out).identity.normalize, len(told(capfd))

    assert heard(folder, "a", "--normalize", "true") == (True, 0)
    assert heard(folder, "b") == (False, 1)
    assert heard(tmp_path / "a", "c", "--normalize", "false") == (False, 0)


def test_families_without_a_choice(whisper_folder, decoar2_file, tmp_path):
    for source in (whisper_folder, decoar2_file):
        with pytest.raises(UsageError, match="takes waveforms as they are"):
            convert(source, tmp_path / "x", "hf", normalize=True)
        assert load_upstream(convert(source, tmp_path / source.name, "hf")).identity.normalize is False


def moved(folder, target):
    checkpoint = read_folder(folder)
    checkpoint.state = {name: tensor + 0.01 for name, tensor in checkpoint.state.items()}
    return write_folder(target, checkpoint)


def test_merging_models_from_elsewhere(tmp_path, capfd):
    """Both parents are transformers' own folders; the fine-tuned one's file says how, unless it is a base model's."""
    base = from_the_hub(tmp_path / "base")
    ours = moved(base, tmp_path / "ours")
    foreign = shutil.copytree(ours, tmp_path / "foreign")
    shutil.copyfile(base / "preprocessor_config.json", foreign / "preprocessor_config.json")
    capfd.readouterr()
    (model,) = merge(base, [foreign], out=tmp_path / "merged")
    (said,) = told(capfd)
    assert said.startswith(f"{foreign}: waveforms are taken as they are")
    assert load_upstream(model.folder).identity.normalize is False
    normalised = convert(foreign, tmp_path / "normalised", "hf", normalize=True)
    (model,) = merge(base, [normalised], out=tmp_path / "merged")
    assert load_upstream(model.folder).identity.normalize is True
    with pytest.raises(SpeechFTError, match="disagree about input normalisation"):
        merge(base, [normalised, ours], out=tmp_path / "merged")


def test_comparing_a_merged_model_with_its_parent(tmp_path):
    """θ0 is heard as the merged model, though its own file says otherwise."""
    base = from_the_hub(tmp_path / "base")
    normalised = convert(moved(base, tmp_path / "t"), tmp_path / "n", "hf", normalize=True)
    (model,) = merge(base, [normalised], out=tmp_path / "m")
    result = analyze([model.folder], audio=None, out=tmp_path / "out")
    assert not any("hears its input" in note for note in result["notes"])


def test_doctor_shows_the_difference(tmp_path, capfd):
    folder = from_the_hub(tmp_path / "m")
    found = describe(str(folder))
    assert found["normalize"] is False and found["changes"]["normalize switched"] > 1e-3
    unmasked = [what for what in found["changes"] if "transformers" in what]
    assert unmasked == ["2.4 s padded to 3 s as transformers does, without attention mask"]
    assert found["changes"][unmasked[0]] > 0.01
    assert len(told(capfd)) == 1


def test_doctor_knows_hub_names(tmp_path, monkeypatch):
    from speechft.upstreams import load

    folder = from_the_hub(tmp_path / "m", norm="layer", do_normalize=False)
    monkeypatch.setattr(load, "locate", lambda source: folder)
    assert describe("facebook/hubert-large-ll60k")["normalize"] is True  # the configuration that names it
