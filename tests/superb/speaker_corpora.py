"""Tiny corpora about speakers in the official layouts: VoxCeleb1 with trials (ASV), LibriMix as kaldi folders (SD)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from tiny_corpora import RATE, tone, write


def voice(speaker: int, seconds: float, seed: int) -> np.ndarray:
    """Tones of one pitch with pauses in between, `[samples]` float32; pauses are silent to SoX, `seconds` are not."""
    generator = np.random.default_rng(seed)
    parts, left = [np.zeros(generator.integers(500, 3_000), np.float32)], seconds
    while left > 0:
        length = min(left, generator.uniform(0.15, 0.4)) if left > 0.3 else left
        parts.append(tone(220 * 1.35**speaker, length, seed))
        parts.append(np.zeros(generator.integers(2_500, 5_000), np.float32))
        left -= length
    return np.concatenate(parts)


def make_verification(root: Path, seconds: tuple[float, float] = (0.5, 0.9)) -> dict[str, str]:
    """VoxCeleb1 for ASV: five speakers to train on, three others to tell apart, and one clip that is too short."""
    generator = np.random.default_rng(2)
    for speaker in range(8):
        part = "dev" if speaker < 5 else "test"
        for number in range(4 if part == "dev" else 3):
            wave = voice(speaker, generator.uniform(*seconds), 10 * speaker + number)
            write(root / part / "wav" / f"id{10001 + speaker}" / f"video_{number % 2}" / f"{number:05d}.wav", wave)
    write(root / "dev" / "wav" / "id10001" / "video_0" / "00009.wav", voice(0, 0.2, 99))
    folder = root / "test" / "wav"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))
    lines = [f"{int(one[:7] == other[:7])} {one} {other}" for one, other in combinations(names, 2)]
    (root / "trials.txt").write_text("\n".join(lines) + "\n")
    return {"voxceleb1": str(root), "voxceleb1_trials": str(root / "trials.txt")}


def make_librimix(root: Path, seconds: tuple[float, float] = (0.8, 1.6)) -> dict[str, str]:
    """Kaldi folders of two voices that come and go and overlap, as LibriMix's prepare_diarization.py lays them out."""
    generator = np.random.default_rng(3)
    for split, count in (("train", 9), ("dev", 3), ("test", 4)):
        lines: dict[str, list[str]] = {name: [] for name in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")}
        spoken: dict[str, list[str]] = {}
        for number in range(count):
            length = float(generator.uniform(*seconds))
            name, wave = f"{split}{number}", np.zeros(round(length * RATE), np.float32)
            for speaker in generator.permutation(4)[:2].tolist():
                start = float(generator.uniform(0, 0.5 * length))
                again = start + 0.4 * length
                for begin, end in ((start, start + 0.3 * length), (again, min(again + 0.3 * length, length))):
                    here = slice(round(begin * RATE), min(round(end * RATE), len(wave)))
                    sound = tone(220 * 1.6**speaker, end - begin + 0.01, number)
                    wave[here] += 0.5 * sound[: here.stop - here.start]
                    utterance = f"{speaker}_{name}_{round(begin * 1000):05d}"
                    lines["segments"].append(f"{utterance} {name} {begin:.2f} {end:.2f}")
                    lines["utt2spk"].append(f"{utterance} spk{speaker}")
                    lines["rttm"].append(
                        f"SPEAKER {name} 1 {begin:7.2f} {end - begin:7.2f} <NA> <NA> spk{speaker} <NA>"
                    )
                    spoken.setdefault(f"spk{speaker}", []).append(utterance)
            write(root / "wav" / split / f"{name}.wav", wave)
            lines["wav.scp"].append(f"{name} {root / 'wav' / split / name}.wav")
            lines["reco2dur"].append(f"{name} {len(wave) / RATE:.4f}")
        lines["spk2utt"] = [f"{speaker} {' '.join(utterances)}" for speaker, utterances in spoken.items()]
        (root / "data" / split).mkdir(parents=True)
        for name, content in lines.items():
            (root / "data" / split / name).write_text("\n".join(content) + "\n")
    return {"librimix": str(root / "data")}
