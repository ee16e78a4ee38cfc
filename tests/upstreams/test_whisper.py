"""Whisper's encoder against transformers' own feature extractor and encoder."""

import json

import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.load import load_upstream


def test_thirty_seconds_equal_transformers(whisper_folder):
    torch.manual_seed(1)
    wave = 0.1 * torch.randn(480_000)
    theirs = WhisperEncoder.from_pretrained(whisper_folder).eval()
    mels = WhisperFeatureExtractor.from_pretrained(whisper_folder)(
        wave.numpy(), sampling_rate=16_000, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(mels.input_features, output_hidden_states=True)
        hidden = load_upstream(whisper_folder)([wave])
    assert hidden.frames.tolist() == [1500] and len(hidden.states) == 3
    assert torch.allclose(hidden.last, expected.last_hidden_state, atol=2e-4)


def test_alone_and_in_a_batch(whisper_folder):
    upstream = load_upstream(whisper_folder)
    torch.manual_seed(0)
    waves = [torch.randn(samples) for samples in (16_000, 9_999, 161, 30)]
    with torch.no_grad():
        together = upstream(waves)
        for row, wave in enumerate(waves):
            alone = upstream([wave])
            count = int(alone.frames[0])
            assert together.frames[row] == count == upstream.frame_counts(torch.tensor([wave.numel()]))[0]
            for mine, theirs in zip(alone.states, together.states, strict=True):
                assert torch.allclose(mine[0], theirs[row, :count], atol=1e-5)


def test_long_recordings_are_encoded_in_pieces(whisper_folder):
    upstream = load_upstream(whisper_folder)
    torch.manual_seed(0)
    long, short = torch.randn(480_000 + 8_000), torch.randn(5_000)
    with torch.no_grad():
        hidden = upstream([long, short])
        rest = upstream([long[480_000:]])
    assert hidden.frames.tolist() == [1525, 16] == upstream.frame_counts(torch.tensor([488_000, 5_000])).tolist()
    assert torch.allclose(hidden.last[0, 1500:1525], rest.last[0], atol=1e-5)


def test_every_parameter_but_the_positions_is_in_one_part(whisper_folder):
    upstream = load_upstream(whisper_folder)
    named = [id(p) for group in upstream.parts().values() for p in group]
    fixed = id(upstream.model.embed_positions.weight)
    assert sorted([*named, fixed]) == sorted(id(p) for p in upstream.parameters())
    assert upstream.checkpoint().state.keys() == upstream.model.state_dict().keys()


def test_foreign_weights_are_refused(whisper_folder, tmp_path):
    for file in whisper_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "encoder_layers": 3}))
    with pytest.raises(SpeechFTError, match="missing"):
        load_upstream(tmp_path)
    with pytest.raises(UsageError, match="as they are"):
        load_upstream(whisper_folder, normalize=True)


@pytest.mark.parametrize("samples", [480_001, 480_159, 480_160, 480_321, 960_000])
def test_a_little_more_than_a_piece_has_its_frame(whisper_folder, samples):
    upstream = load_upstream(whisper_folder)
    with torch.no_grad():
        hidden = upstream([torch.randn(samples)], last_only=True)
    assert hidden.last.shape[1] == int(hidden.frames[0]) == int(upstream.frame_counts(torch.tensor([samples]))[0])


def test_it_fine_tunes_and_its_positions_stay(whisper_folder, tmp_path):
    """Regular fine-tuning moves everything but the sinusoids, which transformers' own training leaves alone, too."""
    from safetensors.torch import load_file

    from speechft.train.finetune import finetune

    words = ["experiment=smoke", f"upstream={whisper_folder}", "strategy=regular", "trainer.steps=3",
             "trainer.checkpoint_every=3", "trainer.lr=1e-3", "strategy.layer_decay=0.9"]  # fmt: skip
    done = finetune(words, tmp_path / "run", latest=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (whisper_folder, done.finetuned))
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert same == {"embed_positions.weight"}
    said = (done.finetuned / "README.md").read_text()
    assert "library_name: transformers" in said and "WhisperEncoder.from_pretrained" in said
    assert "AutoModel.from_pretrained" not in said
    assert json.loads((done.finetuned / "config.json").read_text())["architectures"] == ["WhisperEncoder"]
    theirs, told = WhisperEncoder.from_pretrained(done.finetuned, output_loading_info=True)
    assert not any(told.values())
    assert all(torch.equal(tensor, after[name]) for name, tensor in theirs.state_dict().items())


def test_what_is_left_of_a_whole_whisper_is_called_an_encoder(whisper_folder):
    config = json.loads((whisper_folder / "config.json").read_text())
    upstream = load_upstream(whisper_folder)
    upstream.original_config = {**config, "architectures": ["WhisperModel"]}
    assert upstream.checkpoint().config == {**config, "architectures": ["WhisperEncoder"]}
