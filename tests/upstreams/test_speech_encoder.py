"""Our features against transformers' own, alone and in padded batches."""

import shutil

import pytest
import torch
import transformers
from small import save_upstream

from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.load import load_upstream

CASES = [
    *((family, norm) for family in ("hubert", "wav2vec2", "wavlm", "unispeech-sat") for norm in ("group", "layer")),
    ("data2vec-audio", "layer"),
]


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def pair(request, tmp_path_factory):
    family, norm = request.param
    folder = save_upstream(tmp_path_factory.mktemp("models") / f"{family}-{norm}", family, norm)
    return load_upstream(folder), transformers.AutoModel.from_pretrained(folder).eval()


def test_hidden_states_equal_transformers(pair):
    ours, theirs = pair
    wave = torch.randn(9000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mine = ours([wave])
        reference = theirs(wave[None], output_hidden_states=True)
    assert len(mine.states) == ours.num_layers == len(reference.hidden_states)
    for layer, (a, b) in enumerate(zip(mine.states[:-1], reference.hidden_states[:-1], strict=True)):
        assert torch.allclose(a, b, atol=1e-5), layer
    assert torch.allclose(mine.last, reference.last_hidden_state, atol=1e-5)
    assert mine.frames.tolist() == [reference.last_hidden_state.shape[1]]
    with torch.inference_mode():
        assert torch.equal(ours([wave], last_only=True).last, mine.last)


def test_a_waveform_gives_the_same_alone_and_in_a_batch(pair):
    ours, _ = pair
    generator = torch.Generator().manual_seed(2)
    waves = [torch.randn(length, generator=generator) for length in (8000, 300, 5123, 1)]
    with torch.inference_mode():
        together = ours(waves)
        for row, wave in enumerate(waves):
            alone = ours([wave])
            frames = int(alone.frames[0])
            assert frames == int(together.frames[row]) == alone.last.shape[1] >= 1
            for a, b in zip(alone.states, together.states, strict=True):
                assert torch.allclose(a[0], b[row, :frames], atol=1e-5)


def test_a_frozen_cnn_computes_in_place_the_same_bits(pair):
    ours, _ = pair
    waves, lengths = torch.randn(3, 6000, generator=torch.Generator().manual_seed(4)), torch.tensor([6000, 2000, 4500])
    waves = waves * (torch.arange(6000) < lengths[:, None])
    given = waves.clone()
    trained = ours.cnn(waves, lengths)
    with torch.no_grad():
        frozen = ours.cnn(waves, lengths)
    assert trained.requires_grad and torch.equal(frozen, trained) and torch.equal(waves, given)


def test_without_the_masked_norm_padding_would_matter(tmp_path):
    """The trap is real: transformers' own group norm changes a waveform's features when it is padded."""
    folder = save_upstream(tmp_path / "m")
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    wave = torch.randn(5000, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        alone = theirs(wave[None]).last_hidden_state[0]
        padded = theirs(torch.nn.functional.pad(wave, (0, 5000))[None]).last_hidden_state[0, : len(alone)]
    assert (alone - padded).abs().max() > 1e-2


def test_every_parameter_is_in_one_part(pair):
    ours, _ = pair
    listed = [id(parameter) for parameters in ours.parts().values() for parameter in parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in ours.parameters())
    assert {"cnn", "projection", "layers.0", "layers.1"} <= ours.parts().keys()


def test_masking_and_layer_drop_are_off_while_training(tmp_path):
    folder = save_upstream(tmp_path / "m", layerdrop=0.9, mask_time_prob=0.9, hidden_dropout=0.0, attention_dropout=0.0,
                           activation_dropout=0.0, feat_proj_dropout=0.0)  # fmt: skip
    ours = load_upstream(folder)
    wave = torch.randn(4000)
    with torch.no_grad():
        assert torch.equal(ours.train()([wave]).last, ours.eval()([wave]).last)


def test_normalisation_belongs_to_the_identity(upstream_folder):
    raw, normal = load_upstream(upstream_folder, normalize=False), load_upstream(upstream_folder, normalize=True)
    wave = 0.1 * torch.randn(4000) + 0.3
    with torch.inference_mode():
        expected = raw([(wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-5)]).last
        assert torch.allclose(normal([wave]).last, expected, atol=1e-5)
    assert raw.identity.key != normal.identity.key
    assert raw.identity.sha256 == normal.identity.sha256


def test_both_spellings_of_weight_norm_and_prefixes_load(upstream_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(upstream_folder / "model.safetensors")
    spelled = {
        "hubert."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    assert spelled.keys() != state.keys()
    folder = tmp_path / "old"
    folder.mkdir()
    save_file({**spelled, "lm_head.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((upstream_folder / name).read_text())
    assert load_upstream(folder).identity.sha256 == load_upstream(upstream_folder).identity.sha256


def _damage(folder, upstream_folder, change):
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((upstream_folder / name).read_text())
    state = load_file(upstream_folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder


def test_missing_and_unexpected_tensors_are_named(upstream_folder, tmp_path):
    less = _damage(tmp_path / "less", upstream_folder, lambda s: s.pop("encoder.layers.1.layer_norm.bias"))
    with pytest.raises(SpeechFTError, match=r"1 missing \(encoder\.layers\.1\.layer_norm\.bias\)"):
        load_upstream(less)
    more = _damage(tmp_path / "more", upstream_folder, lambda s: s.update(extra=torch.zeros(1)))
    with pytest.raises(SpeechFTError, match=r"1 unexpected \(extra\)"):
        load_upstream(more)


def test_foreign_and_damaged_checkpoints_are_one_line(upstream_folder, tmp_path):
    truncated = _damage(tmp_path / "cut", upstream_folder, lambda s: None)
    content = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(SpeechFTError, match="no readable checkpoint") as caught:
        load_upstream(truncated)
    assert "\n" not in str(caught.value)
    foreign = _damage(tmp_path / "bert", upstream_folder, lambda s: None)
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SpeechFTError, match=r"unknown architecture \(bert\); known: hubert"):
        load_upstream(foreign)
    said = r"neither a known name nor a folder; did you mean hubert_base\? known names: .*wavlm_large"
    with pytest.raises(UsageError, match=said):
        load_upstream("hubert_bass")
    for path in ("nowhere.pt", "models/nowhere.pt", "./nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(UsageError, match=f"no such file or folder: {path};"):
            load_upstream(path)


def test_a_mistyped_run_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    """`runs` is a folder here, so no organisation of that name is meant."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("the hub was asked"))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    with pytest.raises(UsageError, match="no such file or folder: runs/mne; did you mean runs/mine"):
        load_upstream("runs/mne")


def test_a_known_name_goes_before_a_folder_of_that_name_and_says_so(upstream_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(upstream_folder, "hubert_nano")
    layers = load_upstream("./hubert_nano").num_layers
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert load_upstream("hubert_nano").num_layers != layers
    assert capsys.readouterr().err.splitlines() == [
        "hubert_nano is the known upstream of that name; for hubert_nano in this folder write ./hubert_nano"
    ]


def test_a_name_whose_checkpoint_is_on_no_hub_asks_for_the_file():
    with pytest.raises(UsageError, match=r"decoar2 names no checkpoint; .*upstream.source=PATH"):
        load_upstream("decoar2")


def test_a_malicious_pickle_is_refused_and_does_nothing(upstream_folder, tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text((upstream_folder / "config.json").read_text())
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(SpeechFTError, match=r"holds more than weights.*refused"):
        load_upstream(folder)
    assert not witness.exists()


def test_random_weights_follow_from_the_seed():
    one, two = load_upstream("hubert_nano_random"), load_upstream("hubert_nano_random")
    assert one.identity.sha256 == two.identity.sha256 != load_upstream("hubert_nano").identity.sha256


def test_the_embedded_upstream_is_small_and_loads_in_plain_transformers():
    from speechft.upstreams.load import ASSETS

    folder = ASSETS / "hubert_nano"
    assert (folder / "model.safetensors").stat().st_size <= 5_000_000
    ours, theirs = load_upstream("hubert_nano"), transformers.AutoModel.from_pretrained(folder).eval().float()
    wave = torch.randn(16_000)
    normal = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-5) if ours.identity.normalize else wave
    with torch.inference_mode():
        assert torch.allclose(ours([wave]).last, theirs(normal[None]).last_hidden_state, atol=1e-4)


@pytest.mark.parametrize(("setting", "said"), [
    ({"chunk_secs": 2}, "unknown setting of an upstream: chunk_secs"), ({"normalize": "flase"}, "upstream.normalize"),
    ({"chunk_seconds": "abc"}, "upstream.chunk_seconds"), ({"dropout": 7}, "upstream.dropout"),
], ids=str)  # fmt: skip
def test_impossible_settings(setting, said):
    from speechft.errors import UsageError

    with pytest.raises(UsageError, match=said):
        load_upstream({"name": "x", "source": "asset:hubert_nano", **setting})
