"""The voice encoder: the published network's arithmetic, computed another way; foreign files refused."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.frame_features import featurizer
from speechft.tasks.voice import VoiceEncoder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights in the layout of Resemblyzer's file."""
    torch.manual_seed(0)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    state = {f"lstm.{key}": value for key, value in lstm.state_dict().items()}
    state |= {f"linear.{key}": value for key, value in linear.state_dict().items()}
    state |= {"similarity_weight": torch.tensor([10.0]), "similarity_bias": torch.tensor([-5.0])}
    path = tmp_path_factory.mktemp("voice") / "pretrained.pt"
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}}, path)
    return path


def _reference(state: dict[str, torch.Tensor], wave: np.ndarray) -> np.ndarray:
    """One window of 1.6 s: librosa's mel energies, LSTM cells by their definition, ReLU, length 1."""
    level = 20 * np.log10(np.sqrt(np.mean(wave**2)))
    wave = wave * 10 ** (max(0.0, -30 - level) / 20)
    inputs = librosa.feature.melspectrogram(y=wave, sr=16_000, n_fft=400, hop_length=160, n_mels=40).T[:160]
    for layer in range(3):
        w_in, w_hidden, b_in, b_hidden = (
            state[f"lstm.{kind}_l{layer}"].double().numpy() for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden, cell, outputs = np.zeros(256), np.zeros(256), []
        for frame in inputs:
            gates = w_in @ frame + b_in + w_hidden @ hidden + b_hidden
            into, forget, candidate, out = np.split(gates, 4)
            cell = cell / (1 + np.exp(-forget)) + np.tanh(candidate) / (1 + np.exp(-into))
            hidden = np.tanh(cell) / (1 + np.exp(-out))
            outputs.append(hidden)
        inputs = np.stack(outputs)
    vector = np.maximum(state["linear.weight"].double().numpy() @ inputs[-1] + state["linear.bias"].numpy(), 0)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("gain", [0.3, 0.001], ids=["loud", "quiet"])
def test_a_window_is_what_the_definition_says(weights, gain):
    wave = gain * np.random.default_rng(0).standard_normal(160 * 170).astype(np.float32)
    found = VoiceEncoder(weights)([torch.from_numpy(wave)])[0]
    assert found.shape == (1, 256)
    state = torch.load(weights, weights_only=True)["model_state"]
    assert np.abs(found[0].numpy() - _reference(state, wave.astype(np.float64))).max() < 1e-5


def test_windows_follow_every_0_8_s_and_short_speech_has_one(weights):
    torch.manual_seed(0)
    waves = [torch.randn(16_000 * 4), torch.randn(4000)]
    long, short = VoiceEncoder(weights)(waves)
    assert long.shape == (4, 256) and short.shape == (1, 256)  # 0, 0.8, 1.6 and 2.4 s
    later = VoiceEncoder(weights)([waves[0][12_800:]])[0]
    assert torch.allclose(later[1:], long[2:], atol=0.05)  # the level of the whole utterance differs a little
    compute, source = featurizer({"features": "voice", "path": str(weights)})
    vectors, rate, first = compute([waves[0]])[0]
    assert torch.equal(vectors, long) and (rate, first) == (1.25, 0.8) and len(source) == 64


def test_foreign_files_are_refused(weights, tmp_path):
    with pytest.raises(SpeechFTError, match="is missing"):
        featurizer({"features": "voice", "path": str(tmp_path / "none.pt")})
    with pytest.raises(UsageError, match="path"):
        featurizer({"features": "voice"})
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(SpeechFTError, match="no voice encoder"):
        VoiceEncoder(tmp_path / "other.pt")
    state = torch.load(weights, weights_only=True)["model_state"]
    torch.save({"model_state": {**state, "linear.bias": torch.zeros(3)}}, tmp_path / "shape.pt")
    with pytest.raises(SpeechFTError, match=r"linear\.bias"):
        VoiceEncoder(tmp_path / "shape.pt")
