"""SoX's `silence`: against what SoX 14.4.2 made of the same waveform, and against its definition, sample by sample."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from speechft.errors import SpeechFTError
from speechft.superb.sox_effects import apply_effects_file, apply_effects_tensor

ASV = ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]  # s3prl/downstream/sv_voxceleb1/dataset.py
GAIN = ["gain", "-3.0"]


def speech_and_pauses(seed: int, sections: int = 40) -> np.ndarray:
    """Noise that changes its level, many sections near the threshold and near 0.1 s: `[samples]` int16."""
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(sections):
        level = int(generator.choice([0, 1, 20, 50, 66, 70, 90, 300, 9_000, 32_767]))
        length = int(generator.choice([40, 300, 900, 1_590, 1_600, 1_610, 2_200, 5_000]))
        parts.append(generator.integers(-level, level + 1, length))
    return np.concatenate(parts).astype(np.int16)


def silenced(path, effect) -> np.ndarray:
    return apply_effects_file(str(path), [["channels", "1"], ["rate", "16000"], GAIN, effect])[0][0].numpy()


RECORDED = {
    ("silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"): (28842, "60674716e7e54759"),
    ("silence", "1", "0.05", "-50d"): (68629, "6322cbe70b2fd510"),
    ("silence", "0", "9", "0.01", "0.2%"): (1280, "0faac4f698316dde"),
    ("silence", "2", "0.1", "0.5%", "-2", "0.05", "0.5%"): (6116, "28c99f0f89737fd8"),
    ("silence", "1", "300", "0.3%", "3", "0.02", "-40d"): (940, "bcaf90015cb9b306"),
    ("silence", "0", "-1", "0.1", "0.1%"): (39433, "17830318b2503627"),
}


@pytest.mark.parametrize("effect", RECORDED, ids=" ".join)
def test_what_sox_made_of_it(effect, tmp_path):
    """`sox -D in.wav -e signed -b 32 out.wav channels 1 rate 16000 gain -3.0 silence ...`, length and hash."""
    soundfile.write(tmp_path / "in.wav", speech_and_pauses(11), 16_000, subtype="PCM_16")
    wave = silenced(tmp_path / "in.wav", list(effect))
    digest = hashlib.sha256(wave.astype("<f4").tobytes()).hexdigest()[:16]
    assert (len(wave), digest) == RECORDED[effect]


@pytest.mark.skipif(shutil.which("sox") is None, reason="sox is not installed")
@pytest.mark.parametrize("seed", range(8))
def test_sox_itself(seed, tmp_path):
    soundfile.write(tmp_path / "in.wav", speech_and_pauses(seed), 16_000, subtype="PCM_16")
    command = ["sox", "-D", "in.wav", "-e", "signed", "-b", "32", "out.wav", "channels", "1", "rate", "16000"]
    subprocess.run([*command, *GAIN, *ASV], cwd=tmp_path, check=True)
    expected = soundfile.read(tmp_path / "out.wav", dtype="int32")[0] / 2.0**31
    assert np.array_equal(silenced(tmp_path / "in.wav", ASV), expected.astype(np.float32))


def by_the_definition(wave: np.ndarray, length: int, threshold: float) -> np.ndarray:
    """ASV's effect one sample after the other: the runs of sox(1), the RMS of 20 ms, anew after each restart."""
    integers = [int(one) for one in np.rint(wave.astype(np.float64) * 2**31)]
    kept: list[int] = []
    window: list[int] = []
    searching, held = True, []
    for number, value in enumerate(integers):
        window = [*window[-319:], value]
        loud = math.isqrt(sum(one * one for one in window) // 320) / (2**31 - 1) * 100 > threshold
        if searching:
            held = [*held, number] if loud else []
            if len(held) == length:
                kept, held, searching = kept + held, [], False
        elif loud:
            kept, held = [*kept, *held, number], []
        else:
            held = [*held, number]
            if len(held) == length:
                held, window, searching = [], [], True
    return wave[kept + ([] if searching else held)]


@pytest.mark.parametrize("seed", range(2))
def test_the_definition(seed):
    samples = speech_and_pauses(100 + seed, sections=14)[:20_000]
    wave = samples.astype(np.float32) / 32_768
    mine, rate = apply_effects_tensor(torch.from_numpy(wave)[None], 16_000, [ASV])
    expected = by_the_definition(wave, 1_600, 0.1)
    assert rate == 16_000 and 0 < len(expected) < len(wave)
    assert np.array_equal(mine[0].numpy(), expected)


def test_a_restart_far_behind(monkeypatch):
    """The RMS is computed piece by piece: where the pieces end must not show."""
    from speechft.superb import sox_silence

    wave = torch.from_numpy(np.concatenate([speech_and_pauses(seed) for seed in range(3)]).astype(np.float32) / 32_768)
    whole, _ = apply_effects_tensor(wave[None], 16_000, [ASV])
    monkeypatch.setattr(sox_silence, "_FIRST_LOOK", 0.01)
    pieces, _ = apply_effects_tensor(wave[None], 16_000, [ASV])
    monkeypatch.setattr(sox_silence, "_FIRST_LOOK", 100)
    assert torch.equal(whole, pieces) and torch.equal(whole, apply_effects_tensor(wave[None], 16_000, [ASV])[0])


def test_nothing_and_all_quiet():
    for wave in (torch.zeros(1, 0), torch.zeros(1, 9_000), torch.full((1, 1_599), 0.5)):
        assert apply_effects_tensor(wave, 16_000, [ASV])[0].shape == (1, 0)
    loud = torch.full((1, 9_000), 0.5)
    assert torch.equal(apply_effects_tensor(loud, 16_000, [ASV])[0], loud)


@pytest.mark.parametrize(
    "arguments",
    [[], ["1"], ["1", "0.1"], ["x", "0.1", "1%"], ["-1", "0.1", "1%"], ["1", "0.1", "1%", "1"],
     ["-l", "1", "0.1", "1%"], ["1", "0.1", "1%", "-1", "0.1", "1%", "7"]],
)  # fmt: skip
def test_arguments_that_are_not_supported(arguments):
    with pytest.raises(SpeechFTError, match="silence"):
        apply_effects_tensor(torch.zeros(1, 4), 16_000, [["silence", *arguments]])


def test_two_channels_are_not_supported():
    with pytest.raises(SpeechFTError, match="'silence' on 2 channels"):
        apply_effects_tensor(torch.zeros(2, 4), 16_000, [ASV])
