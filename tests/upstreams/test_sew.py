"""SEW against transformers' own model on single waveforms, and what a batch must not change."""

import pytest
import torch
import transformers
from small import save_upstream, speechft

from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream

CASES = [("group", 16, 32), ("layer", 15, 32), ("group", 16, 24)]


@pytest.fixture(scope="module", params=CASES, ids=[f"{norm}-kernel{kernel}-{dim}" for norm, kernel, dim in CASES])
def pair(request, tmp_path_factory):
    """Both norms, an even and an odd positional kernel, with and without a projection (24 is the CNN's width)."""
    norm, kernel, dim = request.param
    folder = save_upstream(tmp_path_factory.mktemp("sew") / "m", "sew", norm, num_conv_pos_embeddings=kernel,
                           hidden_size=dim)  # fmt: skip
    return load_upstream(folder), transformers.SEWModel.from_pretrained(folder).eval()


def wave(samples, seed=1):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [8000, 8320, 2000])
def test_every_state_equals_transformers(pair, samples):
    """Their states are at the squeezed rate; the last of ours is their upsampled output, a zero frame included."""
    ours, theirs = pair
    with torch.inference_mode():
        mine = ours([wave(samples)])
        reference = theirs(wave(samples)[None], output_hidden_states=True)
    frames = reference.last_hidden_state.shape[1]
    assert mine.frames.tolist() == [frames] == ours.frame_counts(torch.tensor([samples])).tolist()
    assert len(mine.states) == ours.num_layers == len(reference.hidden_states) + 1
    for layer, (a, b) in enumerate(zip(mine.states, reference.hidden_states, strict=False)):
        assert a.shape == mine.last.shape
        assert torch.allclose(a[:, : 2 * (frames // 2) : 2], b, atol=1e-5), layer
        assert torch.equal(a[:, : 2 * (frames // 2) : 2], a[:, 1 : 2 * (frames // 2) : 2]), layer
    assert torch.allclose(mine.last, reference.last_hidden_state, atol=1e-5)
    if frames % 2:
        assert not any(bool(state[:, -1].any()) for state in mine.states)
    with torch.inference_mode():
        assert torch.equal(ours([wave(samples)], last_only=True).last, mine.last)


def test_both_parities_were_among_them(pair):
    assert {int(count) % 2 for count in pair[0].frame_counts(torch.tensor([8000, 8320]))} == {0, 1}


def test_a_waveform_gives_the_same_alone_and_in_a_batch(pair):
    ours, _ = pair
    waves = [wave(length, length) for length in (8320, 8000, 7680, 5123, 300, 1)]
    with torch.inference_mode():
        together = ours(waves)
        for row, one in enumerate(waves):
            alone = ours([one])
            frames = int(alone.frames[0])
            assert frames == int(together.frames[row]) == alone.last.shape[1] >= 1
            for a, b in zip(alone.states, together.states, strict=True):
                assert torch.allclose(a[0], b[row, :frames], atol=1e-5)


def test_transformers_mask_would_change_the_end(tmp_path):
    """The trap is real: in their padded batch the half-padded position is attended to."""
    theirs = transformers.SEWModel.from_pretrained(save_upstream(tmp_path / "m", "sew", "layer")).eval()
    one, mask = wave(8000), torch.ones(1, 8000)
    with torch.inference_mode():
        alone = theirs(one[None]).last_hidden_state[0]
        mask = torch.nn.functional.pad(mask, (0, 1500)).long()
        padded = theirs(torch.nn.functional.pad(one, (0, 1500))[None], attention_mask=mask).last_hidden_state[0]
    assert len(alone) % 2 == 1 and (alone - padded[: len(alone)]).abs().max() > 1e-2


def test_every_parameter_is_in_one_part(pair):
    ours, _ = pair
    parts = ours.parts()
    listed = [id(parameter) for parameters in parts.values() for parameter in parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in ours.parameters())
    assert {"cnn", "projection", "position", "layers.0", "layers.1", "upsample"} <= parts.keys()
    assert all(parts[name] for name in ("cnn", "projection", "position", "upsample"))


def test_what_it_gives_back_loads_in_transformers(pair, tmp_path):
    from speechft.checkpoints.folder import write_folder

    ours, theirs = pair
    write_folder(tmp_path / "back", ours.checkpoint())
    again = transformers.SEWModel.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in theirs.state_dict().items())
    assert load_upstream(tmp_path / "back").identity.sha256 == ours.identity.sha256


def test_a_file_with_the_head_of_a_recogniser_loads(tmp_path):
    """Hub files prefix every name with `sew.`."""
    folder = save_upstream(tmp_path / "m", "sew")
    config = transformers.SEWConfig.from_pretrained(folder)
    torch.manual_seed(0)
    recogniser = transformers.SEWForCTC(config)
    recogniser.sew.load_state_dict(transformers.SEWModel.from_pretrained(folder).state_dict())
    recogniser.save_pretrained(tmp_path / "ctc")
    assert load_upstream(tmp_path / "ctc").identity.sha256 == load_upstream(folder).identity.sha256


def test_stage_1_trains_it_and_it_merges(tmp_path, train_words):
    folder = save_upstream(tmp_path / "m", "sew")
    words = [word for word in train_words if not word.startswith("upstream")]
    done = speechft("train", "--out", tmp_path / "run", "upstream=sew_tiny", f"upstream.source={folder}", *words)
    assert done.returncode == 0, done.stderr
    before, after = load_upstream(folder), load_upstream(tmp_path / "run" / "finetuned")
    assert after.identity.family == "sew" and not after.identity.normalize
    moved = {
        name: any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
        for (name, first), second in zip(before.parts().items(), after.parts().values(), strict=True)
    }
    assert not moved["cnn"] and moved["projection"] and moved["layers.0"] and moved["upsample"]
    (merged,) = merge(folder, [tmp_path / "run" / "finetuned"], [0.5], out=tmp_path / "merged")
    assert load_upstream(merged.folder).identity.family == "sew"


def test_mistakes_are_explained(tmp_path):
    folder = save_upstream(tmp_path / "m", "sew")
    with pytest.raises(UsageError, match="s3prl has no SEW"):
        load_upstream({"name": "x", "source": str(folder), "padding": "s3prl"})
    (folder / "config.json").write_text('{"model_type": "sew-d"}')
    with pytest.raises(SpeechFTError, match=r"unknown architecture \(sew-d\); known: .*sew"):
        load_upstream(folder)
