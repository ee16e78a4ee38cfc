"""Similarity against the definitions, written with numpy over all frames at once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small import save_upstream

from speechft.analysis import similarity
from speechft.analysis.similarity import LayerSums, batched, layer_similarities, layer_similarity, valid_rows
from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.base import Hidden, Identity, Upstream
from speechft.upstreams.load import load_upstream
from speechft.upstreams.speech_encoder import SpeechEncoder


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """From Gram matrices of all frames (Kornblith et al., equations 3 and 5): another way than sums over features."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    n = len(x)
    h = np.eye(n) - np.full((n, n), 1 / n)
    k, m = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def summed(*rows: np.ndarray, pieces: int = 1) -> LayerSums:
    sums = LayerSums(len(rows) - 1)
    for part in zip(*(np.array_split(one, pieces) for one in rows), strict=True):
        sums.add([torch.from_numpy(one) for one in part])
    return sums


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 6)) @ generator.standard_normal((6, 6)) + 3.0
    y = x @ generator.standard_normal((6, 6)) + 0.5 * generator.standard_normal((200, 6)) - 1.0
    return x, y


@pytest.mark.parametrize("pieces", [1, 7, 200])
def test_the_sums_give_the_definitions(features, pieces):
    x, y = features
    result = summed(x, y, pieces=pieces).result(0)
    assert result["frames"] == 200
    assert result["cka"] == pytest.approx(naive_cka(x, y), rel=1e-10)
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert result["cosine"] == pytest.approx(cosines.mean(), rel=1e-12)
    assert result["relative_l2"] == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12)
    assert 0.1 < result["cka"] < 0.95  # neither end, where much else would be right too


def test_rotation_scale_and_offset_do_not_matter_to_cka(features):
    x, y = features
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))
    before = summed(x, y).result(0)["cka"]
    turned = summed(x @ rotation, 7.5 * y[:, ::-1] + 100.0).result(0)
    assert turned["cka"] == pytest.approx(before, rel=1e-10)
    assert summed(x, -0.01 * x @ rotation + 5).result(0)["cka"] == pytest.approx(1.0, abs=1e-12)
    squeezed = summed(x, y * np.array([1, 1, 1, 1, 1, 50.0])).result(0)["cka"]  # any other linear map does
    assert abs(squeezed - before) > 0.02


def test_an_offset_costs_no_digits(features):
    x, y = features
    far = summed(x + 1e6, y - 1e6, pieces=9).result(0)["cka"]
    assert far == pytest.approx(naive_cka(x, y), rel=1e-7)


def test_several_models_of_other_widths(features):
    x, y = features
    sums = summed(x, y, np.hstack([x, y]), x, pieces=3)
    assert [sums.result(0)["cka"], sums.result(1)["cka"]] == pytest.approx(
        [naive_cka(x, y), naive_cka(x, np.hstack([x, y]))], rel=1e-10
    )
    assert sums.result(1)["cosine"] is None and sums.result(1)["relative_l2"] is None
    same = sums.result(2)
    assert (same["cka"], same["cosine"]) == pytest.approx((1.0, 1.0), abs=1e-12) and same["relative_l2"] == 0.0


def test_features_that_do_not_vary_have_no_cka():
    result = summed(np.zeros((5, 3)), np.ones((5, 3))).result(0)
    assert result == {"cka": None, "cosine": 0.0, "relative_l2": None, "frames": 5}
    assert summed(np.zeros((5, 3)), np.zeros((5, 3))).result(0)["cosine"] == 1.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [load_upstream(save_upstream(folder / str(seed), seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def waves():
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=generator) for length in (16_000, 4_321, 9_000, 700, 23_456)]


def test_whole_upstreams_against_their_frames_put_together(pair, waves):
    result = layer_similarity(*pair, waves, batch_seconds=2.0)
    rows = [[], []]
    with torch.inference_mode():
        for number, model in enumerate(pair):
            for wave in waves:
                rows[number].append([state[0].numpy() for state in model([wave]).states])
    assert [one["layer"] for one in result] == [0, 1, 2]
    for layer, one in enumerate(result):
        x, y = (np.concatenate([states[layer] for states in rows[number]]) for number in (0, 1))
        assert one["frames"] == len(x)
        assert one["cka"] == pytest.approx(naive_cka(x, y), abs=2e-6)
        x, y = x.astype(np.float64), y.astype(np.float64)
        assert one["relative_l2"] == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), abs=2e-6)
        assert one["cka"] < 0.99


def test_batches_of_unequal_lengths_are_the_same_as_one_by_one(pair, waves):
    alone = layer_similarity(*pair, waves, batch_seconds=0.0)
    together = layer_similarity(*pair, waves, batch_seconds=1e9)
    for one, other in zip(alone, together, strict=True):
        assert one["frames"] == other["frames"]
        for key in ("cka", "cosine", "relative_l2"):
            assert one[key] == pytest.approx(other[key], abs=2e-6)


def test_s3prls_padding_is_never_heard(tmp_path, pair, waves):
    leaky = load_upstream({"name": "x", "source": str(tmp_path / "x"), "padding": "s3prl"} | {
        "source": str(save_upstream(tmp_path / "x", seed=0))})  # fmt: skip
    assert all(one["relative_l2"] < 1e-5 for one in layer_similarity(pair[0], leaky, waves, batch_seconds=1e9))


def test_one_pass_for_several(pair, waves):
    seconds = []
    several = layer_similarities(pair[0], [pair[1], pair[0]], waves, 1.5, progress=seconds.append)
    assert several[0] == layer_similarity(*pair, waves, 1.5)
    assert all(one["cka"] == pytest.approx(1.0, abs=1e-12) and one["relative_l2"] == 0 for one in several[1])
    assert seconds[-1] == pytest.approx(sum(len(wave) for wave in waves) / 16_000) and len(seconds) > 2


def test_a_cnn_in_common_is_run_once(pair, waves, monkeypatch):
    """Merged upstreams have the pre-trained one's: the numbers are those of each model's own run, to the bit."""
    merged = copy.deepcopy(pair[0])
    for parameter in merged.model.encoder.parameters():
        parameter.data.mul_(1.1)
    heard = []
    cnn = SpeechEncoder.cnn
    monkeypatch.setattr(SpeechEncoder, "cnn", lambda self, *args: heard.append(self) or cnn(self, *args))
    several = layer_similarities(pair[0], [merged, pair[1]], waves, 0.0)
    assert len(heard) == 2 * len(waves) and pair[1] in heard  # not three times
    monkeypatch.setattr(similarity, "Together", lambda models: lambda batch: (model(batch) for model in models))
    assert layer_similarities(pair[0], [merged, pair[1]], waves, 0.0) == several
    assert len(heard) == 5 * len(waves) and several[0][1]["relative_l2"] > 0.001


def test_dropout_is_off_and_the_mode_comes_back(pair, waves):
    first = pair[0].train()
    assert all(one["relative_l2"] == 0 for one in layer_similarity(first, first, waves[:2]))
    assert first.training
    first.eval()


def test_batches(waves):
    sizes = [[len(wave) for wave in batch] for batch in batched(waves, 2.0)]
    assert sizes == [[16_000, 4_321], [9_000, 700], [23_456]]
    assert [len(batch) for batch in batched(waves, 0.0)] == [1] * 5
    assert list(batched([], 5.0)) == []


def test_valid_rows():
    state = torch.arange(12.0).reshape(2, 3, 2)
    assert valid_rows(state, torch.tensor([2, 1])).tolist() == [[0, 1], [2, 3], [6, 7]]


class _Fixed(Upstream):
    """An upstream of one hidden state with as many frames as told."""

    def __init__(self, frames: int, layers: int = 1, value: float = 1.0) -> None:
        super().__init__()
        self.dim, self.num_layers, self.hop = 2, layers, 320
        self.identity = Identity(f"fixed-{frames}", "x", "x", False, "0")
        self._frames, self._value = frames, value

    def forward(self, waveforms, last_only=False):
        frames = torch.full((len(waveforms),), self._frames)
        return Hidden([torch.full((len(waveforms), self._frames, 2), self._value)] * self.num_layers, frames)

    def parts(self):
        return {}

    def frame_counts(self, samples):
        return torch.full_like(samples, self._frames)


def test_what_cannot_be_compared(waves):
    with pytest.raises(UsageError, match="fixed-3 has 2 hidden states, fixed-4 1; compare models of one arch"):
        layer_similarity(_Fixed(4), _Fixed(3, layers=2), waves)
    with pytest.raises(SpeechFTError, match="fixed-3 gives 3 frames where fixed-4 gives 4"):
        layer_similarity(_Fixed(4), _Fixed(3), waves)
    with pytest.raises(SpeechFTError, match="no audio to compare"):
        layer_similarity(_Fixed(4), _Fixed(4), [])
    with pytest.raises(SpeechFTError, match="hidden state 0 are not finite"):
        layer_similarity(_Fixed(4), _Fixed(4, value=float("nan")), waves)
