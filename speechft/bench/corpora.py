"""Corpora for `scripts/bench superb`: noisy tones of realistic lengths in the official layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from speechft.bench import scale
from speechft.data.audio import SAMPLE_RATE

_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed")
_PHONES = ("B", "CH", "D", "F", "G", "K", "L", "M", "N", "P", "S", "T", "AA1", "AE1", "EH1", "IY1", "OW1", "UW1")
_PHONES_A_SECOND = 10  # about what read speech has


@dataclass(frozen=True)
class Sizes:
    """How much is made; seconds are means. Sentences' lengths vary around them by a half, speakers' as VoxCeleb1's.

    Attributes:
        words: training clips of each of Speech Commands' eleven words; each is a second long.
        speakers, sentences: training utterances of VoxCeleb1 and of LibriSpeech.
        evaluated: utterances in each of their dev and test sets (KS: of each word).
        speaker_seconds, sentence_seconds: their mean lengths.
        noise_seconds: of each of Speech Commands' noise files.
    """

    words: int = 4
    speakers: int = 16
    sentences: int = 32
    evaluated: int = 4
    speaker_seconds: float = 8.2
    sentence_seconds: float = 4.0
    noise_seconds: float = 60.0


def make(root: Path, sizes: Sizes, seed: int = 0) -> dict[str, str]:
    """Make all three.

    Returns:
        `data` of configs/eval.yaml for KS, SID and PR.
    """
    generator = np.random.default_rng(seed)
    _speech_commands(root, sizes, generator)
    _voxceleb(root / "vox", sizes, generator)
    _librispeech(root / "librispeech", sizes, generator)
    return {
        "speech_commands": str(root / "commands"), "speech_commands_test": str(root / "commands_test"),
        "voxceleb1": str(root / "vox"), "iden_split": str(root / "vox" / "iden_split.txt"),
        "librispeech": str(root / "librispeech"), "lexicon": str(root / "librispeech" / "lexicon.txt"),
        "librispeech_train": "train-clean-100", "librispeech_dev": "dev-clean", "librispeech_test": "test-clean",
    }  # fmt: skip


def lengths(mean: float, count: int) -> list[float]:
    """Seconds, evenly spread over half to one and a half of the mean; their mean is the mean."""
    return [mean * (0.5 + (number + 0.5) / count) for number in range(count)]


def _write(path: Path, hertz: float, seconds: float, generator: np.random.Generator) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.3 * np.sin(2 * np.pi * hertz * time) + generator.normal(0, 0.03, len(time))
    soundfile.write(path, wave.astype(np.float32), SAMPLE_RATE)


def _speech_commands(root: Path, sizes: Sizes, generator: np.random.Generator) -> None:
    train, dev = _names(False, sizes.words), _names(True, sizes.evaluated)
    for number, word in enumerate(_WORDS):
        for name in (*train, *dev):
            _write(root / "commands" / word / name, 200 + 130 * number, 1.0, generator)
        folder = root / "commands_test" / (word if word != "bed" else "_unknown_")
        for clip in range(sizes.evaluated):
            _write(folder / f"{clip}.wav", 200 + 130 * number, 1.0, generator)
    for number in range(6):
        name = f"noise{number}.wav"
        _write(root / "commands" / "_background_noise_" / name, 60, sizes.noise_seconds, generator)
    _write(root / "commands_test" / "_silence_" / "0.wav", 60, 1.0, generator)


def _names(dev: bool, count: int) -> Sequence[str]:
    """File names that Speech Commands' own rule (a hash of the speaker's name) puts into the dev or the train set."""

    def percent(speaker: str) -> float:
        return (int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27) * (100.0 / (2**27 - 1))

    speakers = (f"{number:08x}" for number in range(10_000))
    wanted = (s for s in speakers if (percent(s) < 10 if dev else percent(s) >= 20))
    return [f"{speaker}_nohash_0.wav" for speaker in islice(wanted, count)]


def _voxceleb(root: Path, sizes: Sizes, generator: np.random.Generator) -> None:
    official, lines = scale.OFFICIAL["sid"], []
    shortest = sizes.speaker_seconds * (official.shortest or 0.0) / official.seconds["train"]
    for part, (folder, count) in enumerate(
        (("dev", sizes.speakers), ("dev", sizes.evaluated), ("test", sizes.evaluated)), start=1
    ):
        for number, seconds in enumerate(scale.lengths(sizes.speaker_seconds, shortest, count)):
            speaker = number % 4
            name = f"id{10001 + speaker}/video{part}/{number:05d}.wav"
            _write(root / folder / "wav" / name, 220 * 1.3**speaker, seconds, generator)
            lines.append(f"{part} {name}")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _librispeech(root: Path, sizes: Sizes, generator: np.random.Generator) -> None:
    for split, count in (
        ("train-clean-100", sizes.sentences), ("dev-clean", sizes.evaluated), ("test-clean", sizes.evaluated),
    ):  # fmt: skip
        folder, lines = root / split / "19" / "1", []
        for number, seconds in enumerate(lengths(sizes.sentence_seconds, count)):
            name = f"19-1-{split[0]}{number:04d}"
            _write(folder / f"{name}.flac", 300, seconds, generator)
            words = generator.choice(len(_PHONES), size=max(1, round(seconds * _PHONES_A_SECOND)))
            lines.append(f"{name} {' '.join(_word(int(word)) for word in words)}")
        (folder / "19-1.trans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lexicon = "".join(f"{_word(number)}\t{phone}\n" for number, phone in enumerate(_PHONES))
    (root / "lexicon.txt").write_text(lexicon, encoding="utf-8")


def _word(number: int) -> str:
    """A word of one phone."""
    return chr(ord("A") + number)
