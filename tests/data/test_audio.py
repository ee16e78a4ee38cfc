"""Any rate, channel count and format in, 16 kHz mono out, against scipy's resampling and the samples written."""

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from speechft.data.audio import load_audio
from speechft.data.corpora import load_cuts
from speechft.data.loader import read_cut

EDGE = 400  # samples at 16 kHz, where two resampling filters see different surroundings


def _speechlike(rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    """Tones up to 3 kHz, different in each channel, `[samples, channels]`."""
    time = np.arange(round(seconds * rate)) / rate
    columns = [
        sum(np.sin(2 * np.pi * pitch * (1 + 0.1 * channel) * time + pitch) for pitch in (220, 700, 1900, 2600)) * 0.15
        for channel in range(channels)
    ]
    return np.stack(columns, 1)


def _read(path, **columns) -> np.ndarray:
    names = ["id", "path", *columns]
    rows = ["\t".join(names), "\t".join(["u", path.name, *map(str, columns.values())])]
    table = path.with_suffix(".tsv")
    table.write_text("\n".join(rows) + "\n")
    cuts = load_cuts([{"kind": "tsv", "path": str(table), "text": None}])[0]
    wave = read_cut(cuts["u"])
    assert wave.dim() == 1 and wave.dtype.is_floating_point and abs(wave.numel() - cuts["u"].num_samples) <= 1
    return wave.numpy()


def _reference(samples: np.ndarray, rate: int) -> np.ndarray:
    divisor = np.gcd(rate, 16_000)
    return resample_poly(samples.mean(1), 16_000 // divisor, rate // divisor, window=("kaiser", 12.0))


@pytest.mark.parametrize(("name", "rate", "channels", "options", "tolerance"), [
    ("a.wav", 16_000, 1, {"subtype": "FLOAT"}, 1e-7),
    ("a.wav", 8_000, 1, {"subtype": "PCM_16"}, 0.01),
    ("a.wav", 44_100, 2, {"subtype": "PCM_16"}, 0.01),
    ("a.flac", 48_000, 1, {"subtype": "PCM_24"}, 0.01),
    ("a.flac", 22_050, 6, {"subtype": "PCM_24"}, 0.01),
    ("a.ogg", 16_000, 1, {}, 0.1),  # lossy
    ("a.opus", 48_000, 1, {"format": "OGG", "subtype": "OPUS"}, 0.1),
], ids=lambda value: str(value))  # fmt: skip
def test_every_format_becomes_16_khz_mono(tmp_path, name, rate, channels, options, tolerance):
    samples = _speechlike(rate, channels=channels)
    soundfile.write(tmp_path / name, samples, rate, **options)
    wanted = _reference(samples, rate)
    for wave in (_read(tmp_path / name), load_audio(tmp_path / name).numpy()):
        assert abs(len(wave) - 16_000) <= 1
        inside = slice(EDGE, 16_000 - EDGE)
        assert np.abs(wave[inside] - wanted[inside]).max() < tolerance
    assert np.array_equal(wave, load_audio(tmp_path / name).numpy())


def test_mp3(tmp_path):
    """The encoder delays, so its spectrum is compared: the four tones, and nothing else as strong."""
    samples = _speechlike(44_100, channels=2)
    soundfile.write(tmp_path / "a.mp3", samples, 44_100, format="MP3")
    wave, wanted = _read(tmp_path / "a.mp3"), _reference(samples, 44_100)
    spectra = [np.abs(np.fft.rfft(one[2000:10_000] * np.hanning(8000))) for one in (wave, wanted)]
    assert np.abs(spectra[0] - spectra[1]).max() < 0.05 * spectra[1].max()


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_part_of_a_long_file_is_what_stands_there(tmp_path, rate):
    samples = _speechlike(rate, seconds=5.0)
    soundfile.write(tmp_path / "a.flac", samples, rate, subtype="PCM_24")
    wanted = _reference(samples, rate)[24_000:40_000]
    wave = _read(tmp_path / "a.flac", start=1.5, end=2.5)
    assert len(wave) == 16_000
    assert np.abs(wave - wanted)[EDGE:-EDGE].max() < 0.01
