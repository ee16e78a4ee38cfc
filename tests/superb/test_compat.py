"""What s3prl misses is put back, only where it is missing, and does what it did."""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechft.errors import SpeechFTError
from speechft.superb import compat, sox_effects


@pytest.fixture(autouse=True)
def installed():
    compat.install()


def snapshot() -> dict:
    names = ["load", "info", "set_audio_backend", "get_audio_backend", "list_audio_backends", "sox_effects"]
    return {name: getattr(torchaudio, name) for name in names}


def test_installing_twice_changes_nothing():
    before = snapshot()
    compat.install()
    assert snapshot() == before


def test_what_is_there_stays(monkeypatch):
    import huggingface_hub

    def working(uri, *args, **kwargs):
        return torch.zeros(1, 16), 16_000

    for holder, name in ((torchaudio, "info"), (torchaudio, "set_audio_backend"), (huggingface_hub, "HfFolder")):
        monkeypatch.setattr(holder, name, working, raising=False)
    monkeypatch.setattr(torchaudio, "load", working)
    monkeypatch.setitem(sys.modules, "catalyst", types.ModuleType("catalyst"))
    compat.install()
    assert torchaudio.load is torchaudio.info is torchaudio.set_audio_backend is huggingface_hub.HfFolder is working
    assert not hasattr(sys.modules["catalyst"], "data")


def test_a_load_that_only_raises_is_replaced(monkeypatch):
    def broken(*args, **kwargs):
        raise ImportError("TorchCodec is required")

    monkeypatch.setattr(torchaudio, "load", broken)
    compat.install()
    assert torchaudio.load is compat.load


def test_load_and_info(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (800, 2)).astype(np.float32)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, samples, 22_050, subtype="FLOAT")
    wave, rate = compat.load(path)
    assert rate == 22_050 and wave.dtype == torch.float32 and wave.shape == (2, 800)
    np.testing.assert_array_equal(wave.numpy(), samples.T)
    part, _ = compat.load(str(path), frame_offset=100, num_frames=50)
    np.testing.assert_array_equal(part.numpy(), samples[100:150].T)
    assert compat.load(path, channels_first=False)[0].shape == (800, 2)
    with path.open("rb") as file:
        assert compat.load(file)[0].shape == (2, 800)
    assert tuple(compat.info(path))[:4] == (22_050, 800, 2, 32)


def test_sixteen_bit_is_normalised(tmp_path):
    path = tmp_path / "int.wav"
    soundfile.write(path, np.array([0, 16_384, -32_768], dtype=np.int16), 16_000)
    assert compat.load(path)[0].tolist() == [[0.0, 0.5, -1.0]]


def test_effects_of_keyword_spotting(tmp_path):
    """Two channels, 8 kHz: the mean of the channels, at 16 kHz, 3 dB softer."""
    time = np.arange(8_000) / 8_000
    left, right = np.sin(2 * np.pi * 440 * time), 0.5 * np.sin(2 * np.pi * 440 * time)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([left, right], 1), 8_000, subtype="FLOAT")
    effects = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
    wave, rate = sox_effects.apply_effects_file(str(path), effects)
    assert rate == 16_000 and wave.shape == (1, 16_000)
    expected = 0.75 * 10 ** (-3 / 20) * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(wave[0, 1_000:-1_000].numpy(), expected[1_000:-1_000], atol=2e-3)


def test_gain_norm_and_clipping():
    wave = torch.tensor([[0.25, -0.5]])
    louder, _ = sox_effects.apply_effects_tensor(wave, 16_000, [["gain", "6"]])
    assert louder[0, 0] == pytest.approx(0.25 * 10 ** (6 / 20))
    assert sox_effects.apply_effects_tensor(wave, 16_000, [["gain", "20"]])[0].tolist() == [[1.0, -1.0]]
    normed, _ = sox_effects.apply_effects_tensor(wave, 16_000, [["norm", "-6"]])
    assert normed.abs().max() == pytest.approx(10 ** (-6 / 20))
    assert torch.equal(sox_effects.apply_effects_tensor(torch.zeros(1, 4), 16_000, [["norm"]])[0], torch.zeros(1, 4))
    last, _ = sox_effects.apply_effects_tensor(wave.T, 16_000, [["gain", "-3"]], channels_first=False)
    assert last.shape == (2, 1)


@pytest.mark.parametrize("effect", [["silence", "1"], ["reverb"], ["gain", "-l", "3"]])
def test_unsupported_effects_say_so(effect):
    with pytest.raises(SpeechFTError, match=effect[0]):
        sox_effects.apply_effects_tensor(torch.zeros(1, 4), 16_000, [effect])


def test_checkpoints_with_a_namespace_load_without_unpickling(tmp_path):
    torch.save({"Args": argparse.Namespace(seed=1), "Step": 2}, tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["Args"].seed == 1


def test_quiet_sends_output_to_the_log(tmp_path, capfd):
    from tqdm import tqdm

    from speechft.superb.quiet import quiet

    with quiet(tmp_path / "log"):
        print("from s3prl")
        print("a complaint", file=sys.stderr)
        for _ in tqdm(range(3)):
            pass
    print("ours")
    out, err = capfd.readouterr()
    assert (out, err) == ("ours\n", "")
    assert (tmp_path / "log").read_text().split("\n")[:2] == ["from s3prl", "a complaint"]
    assert "3/3" not in (tmp_path / "log").read_text()


def test_scores_keep_what_the_expert_reports():
    from speechft.superb.records import Scores

    scores = Scores("pr")
    scores.add_scalar("ctc-libriphone/dev-per", 0.5, global_step=3)
    scores.add_scalar("ctc-libriphone/test-per", 0.25, global_step=3)
    assert scores.of("dev") == {"per": 0.5}
    with pytest.raises(SpeechFTError, match="loss of pr is NaN at step 3"):
        scores.add_scalar("ctc-libriphone/train-loss", math.nan, global_step=3)


@pytest.mark.skipif(shutil.which("sox") is not None, reason="the program sox is installed")
def test_a_missing_sox_is_not_complained_of():
    """pysox asks a shell for the program and warns; nobody who evaluates ASV has to read that."""
    words = "from speechft.superb import compat; compat.install(); import sox; print(sox.NO_SOX)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n" and done.stderr == ""
