"""Long recordings in pieces: the frames of the whole, in bounded memory; and inputs too short for a frame."""

import pytest
import torch
from small import save_upstream, speechft

from speechft.config.locate import group_names, read_group
from speechft.errors import UsageError
from speechft.upstreams.chunked import Chunked
from speechft.upstreams.load import load_upstream

FAMILIES = ["hubert", "wav2vec2-layer", "wavlm", "data2vec-audio-layer", "sew", "decoar2", "whisper", "fbank"]
SECONDS, OVERLAP = 2.0, 1.0
LENGTHS = (16_000 * 11 + 137, 16_000 * 7 + 319, 16_000 * 2 + 1, 16_000 * 2, 5000)


@pytest.fixture(scope="module", params=FAMILIES)
def source(request, tmp_path_factory):
    name = request.param
    if name == "decoar2":
        return request.getfixturevalue("decoar2_file")
    if name == "whisper":
        return request.getfixturevalue("whisper_folder")
    if name == "fbank":
        return "fbank"
    family, _, layer = name.partition("-layer")
    return save_upstream(tmp_path_factory.mktemp("m") / name, family, "layer" if layer else "group")


def noise(samples, seed=0):
    generator = torch.Generator().manual_seed(seed + samples)
    return 0.3 * torch.randn(samples, generator=generator) + 0.05


def by_definition(upstream, chunked, wave):
    """Each frame from the full-length piece with most context on its poorer side, one piece at a time."""
    total = int(upstream.frame_counts(torch.tensor([len(wave)]))[0])
    pieces = chunked.pieces(len(wave))
    best = [(-1.0, None)] * total
    for number, piece in enumerate(pieces):
        with torch.inference_mode():
            states = upstream([wave[piece.start : piece.stop]]).states
        count = states[0].shape[1]
        if number < len(pieces) - 1:
            count = chunked._usable // upstream.hop
        for frame in range(count):
            left = float("inf") if number == 0 else frame
            right = float("inf") if number == len(pieces) - 1 else count - 1 - frame
            if min(left, right) > best[piece.offset + frame][0]:
                best[piece.offset + frame] = (min(left, right), [state[0, frame] for state in states])
    return [torch.stack([states[layer] for _, states in best]) for layer in range(upstream.num_layers)]


def test_frames_are_the_wholes_and_each_comes_from_its_best_piece(source):
    upstream, chunked = load_upstream(source), load_upstream(source, chunk_seconds=SECONDS, chunk_overlap=OVERLAP)
    waves = [noise(length) for length in LENGTHS]
    with torch.inference_mode():
        hidden = chunked(waves)
        last = chunked(waves, last_only=True)
    counts = upstream.frame_counts(torch.tensor(LENGTHS)).tolist()
    assert (
        hidden.frames.tolist() == counts == last.frames.tolist() == chunked.frame_counts(torch.tensor(LENGTHS)).tolist()
    )
    assert len(hidden.states) == upstream.num_layers and len(last.states) == 1
    for row, wave in enumerate(waves):
        for mine, expected in zip(hidden.states, by_definition(upstream, chunked, wave), strict=True):
            assert torch.allclose(mine[row, : counts[row]], expected, atol=2e-4)
            assert not bool(mine[row, counts[row] :].any()) or len(chunked.pieces(len(wave))) == 1
        assert torch.allclose(last.last[row, : counts[row]], hidden.last[row, : counts[row]], atol=1e-5)


def test_the_middle_of_pieces_is_close_to_the_whole(source):
    upstream, chunked = load_upstream(source), load_upstream(source, chunk_seconds=SECONDS, chunk_overlap=OVERLAP)
    if upstream.identity.family == "whisper":
        pytest.skip("its positions restart with every piece, as every 30 s without pieces")
    wave = noise(LENGTHS[0])
    with torch.inference_mode():
        whole, joined = upstream([wave]), chunked([wave])
    for a, b in zip(whole.states, joined.states, strict=True):
        scale = (a[0] - a[0].mean(0)).norm()
        error, shifted = (a[0] - b[0]).norm() / scale, (a[0, 1:] - b[0, :-1]).norm() / scale
        assert error < 0.15 and shifted > 5 * error, (float(error), float(shifted))
    if upstream.identity.family == "fbank":  # a frame's neighbours are all it hears
        assert torch.equal(whole.last, joined.last)


def test_one_piece_is_the_same_as_without(source):
    upstream, chunked = load_upstream(source), load_upstream(source, chunk_seconds=SECONDS, chunk_overlap=OVERLAP)
    waves = [noise(32_000), noise(7000)]
    with torch.inference_mode():
        for a, b in zip(upstream(waves).states, chunked(waves).states, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("samples", [0, 1, 79, 399])
def test_less_than_a_frame_counts_as_followed_by_zeros(source, samples):
    for upstream in (load_upstream(source), load_upstream(source, chunk_seconds=SECONDS, chunk_overlap=OVERLAP)):
        short, long = noise(samples), noise(9000)
        with torch.inference_mode():
            alone, together = upstream([short]), upstream([long, short])
        assert alone.frames.tolist() == [1] == upstream.frame_counts(torch.tensor([samples])).tolist() or (
            upstream.identity.family == "sew" and alone.frames.tolist() == [2]  # its transformer takes two at once
        )
        frames = int(alone.frames[0])
        assert int(together.frames[1]) == frames
        for a, b in zip(alone.states, together.states, strict=True):
            assert a.shape[1] == frames and bool(torch.isfinite(a).all())
            assert torch.allclose(a[0], b[1, :frames], atol=1e-4)


def test_an_empty_waveform_with_normalisation(upstream_folder):
    upstream = load_upstream(upstream_folder, normalize=True)
    for wave in (torch.zeros(0), torch.ones(1)):
        with torch.inference_mode():
            assert bool(torch.isfinite(upstream([wave, noise(5000)]).last).all())


def test_an_hour_costs_no_more_than_a_piece(monkeypatch):
    """The inner upstream never hears more samples at once than there are waveforms in the batch, times a piece."""
    upstream = load_upstream("fbank", chunk_seconds=30)
    inner, heard = upstream.inner.forward, []

    def listening(waves, last_only=False):
        heard.append(len(waves) * max(map(len, waves)))
        return inner(waves, last_only)

    monkeypatch.setattr(upstream.inner, "forward", listening)
    hour = 3600 * 16_000
    assert upstream([torch.zeros(hour)]).frames.tolist() == [(hour - 400) // 160 + 1]
    assert max(heard) == 30 * 16_000 and sum(heard) < 1.2 * hour and len(heard) == 139
    heard.clear()
    upstream([torch.zeros(90 * 16_000), torch.zeros(16_000), torch.zeros(45 * 16_000)])
    assert max(heard) == 3 * 30 * 16_000


def test_normalisation_is_over_the_whole_recording(upstream_folder):
    """A loud and a quiet half keep their difference, though they come in different pieces."""
    wave = torch.cat([noise(64_000), 0.01 * noise(64_000, 1)])
    scaled = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-5)
    with torch.inference_mode():
        mine = load_upstream(upstream_folder, True, SECONDS, OVERLAP)([wave]).last
        expected = load_upstream(upstream_folder, False, SECONDS, OVERLAP)([scaled]).last
    assert torch.allclose(mine, expected, atol=1e-5)


def test_the_lengths_belong_to_the_identity(upstream_folder):
    identities = [
        load_upstream(upstream_folder, chunk_seconds=seconds, chunk_overlap=overlap).identity
        for seconds, overlap in ((None, None), (20, 4), (30, 4), (30, 2))
    ]
    assert len({identity.key for identity in identities}) == 4
    assert len({identity.sha256 for identity in identities}) == 1
    assert identities[1].as_dict()["chunk_seconds"] == 20


def test_every_configuration_has_the_option():
    for name in group_names("upstream"):
        settings = read_group("upstream", name)
        assert settings["chunk_seconds"] is None and settings["chunk_overlap"] == 4, name
    made = load_upstream({**read_group("upstream", "fbank"), "chunk_seconds": 10})
    assert isinstance(made, Chunked) and made.identity.chunk_overlap == 4


@pytest.mark.parametrize(
    ("seconds", "overlap"), [(0, 0), (-1, 0), (2, 2), (2, 3), (2, -1), (0.01, 0), (float("nan"), 0)]
)
def test_impossible_lengths_are_refused(seconds, overlap, upstream_folder):
    with pytest.raises(UsageError, match=r"chunk_seconds=.* leaves nothing to go forward by; give positive lengths"):
        load_upstream(upstream_folder, chunk_seconds=seconds, chunk_overlap=overlap)


def test_without_overlap_no_frame_is_missing(source):
    """A frame hears more than a hop, so pieces that only touch would lose one at each joint."""
    upstream, chunked = load_upstream(source), load_upstream(source, chunk_seconds=0.5, chunk_overlap=0)
    for samples in (40_000, 40_321, 8001):
        pieces = chunked.pieces(samples)
        total = int(upstream.frame_counts(torch.tensor([samples]))[0])
        assert [frame for piece in pieces for frame in range(piece.first, piece.last)] == list(range(total))
        for piece in pieces:
            inside = int(upstream.frame_counts(torch.tensor([piece.stop - piece.start]))[0])
            assert piece.offset <= piece.first < piece.last <= piece.offset + inside
            assert piece.stop - piece.start <= 8000 and piece.start == piece.offset * upstream.hop


def test_stage_1_takes_long_recordings(tmp_path, train_words):
    words = [*train_words, "upstream.chunk_seconds=0.5", "upstream.chunk_overlap=0.1"]
    done = speechft("train", "--out", tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    assert load_upstream(tmp_path / "run" / "finetuned").identity.chunk_seconds is None
