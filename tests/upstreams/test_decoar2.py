"""DeCoAR 2.0 against s3prl's own module: features, formats, stage 1."""

import pytest
import torch
from small import speechft

from speechft.checkpoints.convert import convert
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream


def hub(file):
    import s3prl.hub

    return s3prl.hub.decoar2_custom(str(file)).eval()


def waves(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(length, generator=generator) for length in lengths]


def test_features_equal_s3prls_module_alone_and_in_batches(decoar2_file):
    ours, theirs = load_upstream(decoar2_file), hub(decoar2_file)
    for batch in (waves(9000), waves(16000, 8650, 7999), waves(4100, 4000)):
        with torch.inference_mode():
            mine, reference = ours(batch), theirs(batch)["hidden_states"]
        assert len(mine.states) == len(reference) == ours.num_layers == 3
        for row, frames in enumerate(mine.frames.tolist()):
            for a, b in zip(mine.states, reference, strict=True):
                assert torch.allclose(a[row, :frames], b[row, :frames], atol=1e-4)
        assert mine.frames.tolist() == ours.frame_counts(torch.tensor([len(wave) for wave in batch])).tolist()


def test_a_waveform_gives_the_same_alone_and_in_a_batch(decoar2_file):
    ours, batch = load_upstream(decoar2_file), waves(8000, 700, 5123, 1)
    with torch.inference_mode():
        together = ours(batch)
        for row, wave in enumerate(batch):
            alone = ours([wave])
            frames = int(alone.frames[0])
            assert frames == int(together.frames[row]) >= 1 and bool(torch.isfinite(alone.last).all())
            for a, b in zip(alone.states, together.states, strict=True):
                assert torch.allclose(a[0], b[row, :frames], atol=1e-4)


def test_round_trip_and_merge(decoar2_file, tmp_path):
    folder = convert(decoar2_file, tmp_path / "hf", "hf")
    back = convert(folder, tmp_path / "back.pt", "s3prl")
    first, second = (torch.load(path, weights_only=True)["model"] for path in (decoar2_file, back))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    ours = load_upstream(folder)
    assert ours.identity.sha256 == load_upstream(decoar2_file).identity.sha256
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1)
    from speechft.checkpoints.folder import write_folder

    write_folder(tmp_path / "tuned", ours.checkpoint())
    (merged,) = merge(decoar2_file, [tmp_path / "tuned"], [0.5], out=tmp_path / "merged")
    written = convert(merged.folder, tmp_path / "merged.pt", "s3prl")
    wave = waves(9000)
    with torch.inference_mode():
        a, b = load_upstream(merged.folder)(wave).last, hub(written)(wave)["hidden_states"][-1]
    assert torch.allclose(a, b, atol=1e-4)


def test_stage_1_trains_it(decoar2_file, tmp_path, train_words):
    words = [word for word in train_words if not word.startswith("upstream")]
    done = speechft("train", "--out", tmp_path / "run", "upstream=decoar2", f"upstream.source={decoar2_file}", *words)
    assert done.returncode == 0, done.stderr
    before, after = load_upstream(decoar2_file), load_upstream(tmp_path / "run" / "finetuned")
    assert after.identity.family == "decoar2" and after.identity.sha256 != before.identity.sha256


def test_mistakes_are_explained(decoar2_file, tmp_path):
    with pytest.raises(UsageError, match="takes waveforms as they are"):
        load_upstream(decoar2_file, normalize=True)
    state = torch.load(decoar2_file, weights_only=True)["model"]
    del state["encoder.layers.1.fc2.bias"]
    torch.save({"model": state}, tmp_path / "cut.pt")
    with pytest.raises(SpeechFTError, match=r"1 missing \(encoder.layers.1"):
        load_upstream(tmp_path / "cut.pt")


@pytest.mark.slow
def test_features_equal_s3prls_module_at_base_size(tmp_path, monkeypatch):
    """Twelve layers of 768: the sizes of the published model, and of s3prl's module unless a test has changed them."""
    from native_models import compat, save_decoar2

    compat.install()
    from s3prl.upstream.decoar2 import decoar2

    published = {"encoder_embed_dim": 768, "encoder_layers": 12, "encoder_ffn_embed_dim": 3072,
                 "encoder_attention_heads": 12, "conv_pos": 128, "conv_pos_groups": 16}  # fmt: skip
    monkeypatch.setattr(decoar2, "args", {**decoar2.args, **published})
    file = save_decoar2(tmp_path / "base.pt")
    ours, theirs = load_upstream(file), hub(file)
    assert sum(parameter.numel() for parameter in ours.parameters()) > 80e6
    for batch in (waves(9000), waves(16000, 8650, 7999)):
        with torch.inference_mode():
            mine, reference = ours(batch), theirs(batch)["hidden_states"]
        assert len(mine.states) == len(reference) == 13
        for row, frames in enumerate(mine.frames.tolist()):
            for a, b in zip(mine.states, reference, strict=True):
                assert torch.allclose(a[row, :frames], b[row, :frames], atol=1e-4)
