"""Corpora in the official layouts and upstreams in the official formats, as small as the paper's recipes allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import noise, sphere
from native_models import DECOAR2, native_file, save_decoar2
from small import tone
from tiny_corpora import LEXICON, PITCH, write
from tiny_pooled import make_iemocap
from tiny_snips import make_snips

from speechft.data.shares import split_position
from speechft.superb import compat

SENTENCES = ("the quick brown fox jumps", "over the lazy dog 's back", "pack my box with five", "dozen liquor jugs")
TALKS = {"train": ("Abe_2009", "Bea_2010"), "dev": ("Dev_2008",)}


def make_corpora(root: Path) -> dict[str, str]:
    """All that rows train on and are scored on."""
    make_tedlium3(root / "tedlium3")
    make_librispeech(root / "librispeech")
    make_voxceleb(root / "voxceleb1")
    make_iemocap(root / "iemocap")
    make_snips(root / "snips")
    make_aishell3(root / "aishell3")
    names = ("tedlium3", "librispeech", "voxceleb1", "iemocap", "snips", "aishell3")
    return {**{name: str(root / name) for name in names}, "lexicon": str(root / "librispeech" / "lexicon.txt")}


def make_tedlium3(root: Path) -> None:
    """Talks of 20 s: four utterances with all letters, one with `<unk>`, one of half a second."""
    for split, talks in TALKS.items():
        for number, talk in enumerate(talks):
            sphere(root / "legacy" / split / "sph" / f"{talk}.sph", tone(20, 200 + 50 * len(split) * (number + 1)))
            stm = root / "legacy" / split / "stm" / f"{talk}.stm"
            stm.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{3 * n}.00 {3 * n + 2}.00 <NA> {text}" for n, text in enumerate(SENTENCES)]
            lines += ["13.00 15.00 <NA> with <unk> inside", "16.00 16.50 <NA> short"]
            stm.write_text("".join(f"{talk} 1 {talk} {line}\n" for line in lines))


def make_librispeech(root: Path) -> None:
    """Utterances of about 3 s, for SPIN leaves shorter ones out."""
    words, generator = list(LEXICON), np.random.default_rng(0)
    for split, count in (("train-clean-100", 6), ("dev-clean", 2), ("test-clean", 3)):
        folder, lines = root / split / "19" / split[0], []
        for number in range(count):
            sentence = [words[index] for index in generator.integers(0, len(words), 10)]
            phones = [phone for word in sentence for phone in LEXICON[word].split()]
            name = f"19-{split[0]}-{number:04d}"
            waves = [tone(0.11 + 0.001 * number, PITCH[phone], seed=place) for place, phone in enumerate(phones)]
            write(folder / f"{name}.flac", np.concatenate(waves))
            lines.append(f"{name} {' '.join(sentence)}")
        (folder / f"19-{split[0]}.trans.txt").write_text("\n".join(lines) + "\n")
    (root / "lexicon.txt").write_text("".join(f"{word}\t{phones}\n" for word, phones in LEXICON.items()))


def make_voxceleb(root: Path) -> None:
    """As released: a speaker is in one folder as a whole; all are in train, dev and test of iden_split.txt."""
    lines = []
    for speaker in range(4):
        for number in range(6):
            name = f"id{10001 + speaker}/session{number % 2}/{number:05d}.wav"
            part = "test" if speaker == 3 else "dev"
            write(root / part / "wav" / name, tone(0.3 + 0.1 * number, 200 * (speaker + 1), seed=10 * speaker + number))
            lines.append(f"{1 if number < 4 else number - 2} {name}")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n")


def make_aishell3(root: Path) -> None:
    """Speech enough for 500 clusters, of speakers of whom one is in the dev set."""
    names = [f"SSB{number:04d}" for number in range(200)]
    speakers = [next(name for name in names if split_position(name) >= 0.95),
                *[name for name in names if split_position(name) < 0.95][:3]]  # fmt: skip
    lines = []
    for speaker in speakers:
        for number in range(3):
            name = f"{speaker}{number:04d}.wav"
            noise(root / "train" / "wav" / speaker / name, seconds=1.5, rate=44_100)
            lines.append(f"{name}\t广 guang3 州 zhou1\n")
    (root / "train" / "content.txt").write_text("".join(lines), encoding="utf-8")


def make_checkpoints(root: Path) -> dict[str, str]:
    """All four as s3prl's own modules save them, with the twelve layers that SPIN's recipe asks for."""
    compat.install()
    from s3prl.upstream.decoar2 import decoar2

    files = {
        "hubert_base": native_file(root, "hubert", "default", encoder_layers=12),
        "wav2vec2_base": native_file(root, "wav2vec2", "default", encoder_layers=12),
        "wavlm_base_plus": native_file(root, "wavlm", "default", encoder_layers=12),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoar2, "args", {**decoar2.args, **DECOAR2, "encoder_layers": 12})
        files["decoar2"] = save_decoar2(root / "decoar2.pt")
    return {name: str(file) for name, file in files.items()}
