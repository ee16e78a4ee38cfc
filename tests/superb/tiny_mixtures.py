"""Tiny corpora of mixed sounds in the official layouts: Voicebank-DEMAND (SE) and Libri2Mix (SS)."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tiny_corpora import RATE, tone, write


def make_voicebank(root: Path) -> Path:
    """Two training speakers, the two dev speakers, one to test; clean tones and the same in noise."""
    generator = np.random.default_rng(4)
    for part, speakers in (("trainset_28spk", ("p225", "p228", "p226", "p287")), ("testset", ("p232",))):
        for speaker in speakers:
            for number in range(1, 4):
                name, length = f"{speaker}_{number:03d}.wav", generator.uniform(0.6, 0.9)
                clean = np.concatenate([tone(200 + 90 * number, length / 2, number), tone(700, length / 2, number)])
                noisy = clean + generator.normal(0, 0.1, len(clean)).astype(np.float32)
                write(root / f"clean_{part}_wav" / name, clean)
                write(root / f"noisy_{part}_wav" / name, noisy)
    return root


def make_libri2mix(root: Path) -> Path:
    generator = np.random.default_rng(5)
    for part, count in (("train-100", 7), ("dev", 2), ("test", 3)):
        for number in range(count):
            samples = round(generator.uniform(0.5, 0.9) * RATE)
            sources = [tone(pitch, 1.0, number)[:samples] for pitch in (200 + 30 * number, 900 - 40 * number)]
            folders = root / "wav16k" / "min" / part
            for condition, wave in (("s1", sources[0]), ("s2", sources[1]), ("mix_clean", sources[0] + sources[1])):
                write(folders / condition / f"{number}-1_{number}-2.wav", wave)
    return root


def stand_ins() -> list[str]:
    """PESQ's package compiles C and may be missing: something in its place, and STOI's, that also listens.

    Returns:
        The names of those put there.
    """

    def likeness(reference: np.ndarray, estimate: np.ndarray) -> float:
        return float(np.corrcoef(reference, estimate)[0, 1])

    made = []
    calls = {"pesq": lambda rate, one, other, mode: 1 + likeness(one, other),
             "pystoi": lambda one, other, rate: likeness(one, other)}  # fmt: skip
    for name, function in (("pesq", "pesq"), ("pystoi", "stoi")):
        if find_spec(name) is None:
            module = types.ModuleType(name)
            setattr(module, function, calls[name])
            module.__spec__ = ModuleSpec(name, None)
            sys.modules[name] = module
            made.append(name)
    return made
