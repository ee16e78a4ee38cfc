"""Small upstreams and corpora that every test can use, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small import save_upstream, speechft, tone

torch.set_num_threads(1)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

WORDS = {"ONE": "W AH N", "TWO": "T UW", "TEN": "T EH N", "SIX": "S IH K S"}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests keep their cache apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("SPEECHFT_CACHE")
    os.environ["SPEECHFT_CACHE"] = str(folder)
    yield folder
    if before is None:
        os.environ.pop("SPEECHFT_CACHE", None)
    else:
        os.environ["SPEECHFT_CACHE"] = before


@pytest.fixture(scope="session")
def upstream_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_upstream(tmp_path_factory.mktemp("upstream") / "tiny_hubert")


@pytest.fixture(scope="session")
def decoar2_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small DeCoAR 2.0 as s3prl saves it; its sizes are constants of s3prl's module, changed for as long."""
    from native_models import DECOAR2, compat, save_decoar2

    compat.install()
    from s3prl.upstream.decoar2 import decoar2

    patch = pytest.MonkeyPatch()
    patch.setattr(decoar2, "args", {**decoar2.args, **DECOAR2})
    yield save_decoar2(tmp_path_factory.mktemp("decoar2") / "decoar2.pt")
    patch.undo()


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small encoder with positions for 30 s, saved by transformers."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    path = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    config = WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64, vocab_size=100,
                           pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)  # fmt: skip
    WhisperEncoder(config).eval().save_pretrained(path)
    WhisperFeatureExtractor().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def librispeech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LibriSpeech's layout with two splits of tones that stand for words."""
    root = tmp_path_factory.mktemp("librispeech")
    generator = np.random.default_rng(0)
    pitches = dict(zip(WORDS, (150.0, 300.0, 600.0, 1200.0), strict=True))
    for split, speakers in (("train-clean-100", ("11", "12", "13")), ("dev-clean", ("21",))):
        for speaker in speakers:
            folder = root / split / speaker / "1"
            folder.mkdir(parents=True)
            lines = []
            for number in range(8):
                words = list(generator.choice(list(WORDS), size=int(generator.integers(1, 4))))
                wave = np.concatenate([tone(0.35, pitches[word], seed=100 * int(speaker) + number) for word in words])
                name = f"{speaker}-1-{number:04d}"
                soundfile.write(folder / f"{name}.flac", wave, 16_000)
                lines.append(f"{name} {' '.join(words)}\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text("".join(f"{word}\t{phones}\n" for word, phones in WORDS.items()))
    return root


@pytest.fixture(scope="session")
def train_words(upstream_folder: Path, librispeech: Path) -> list[str]:
    """Overrides of a small, quick fine-tuning on that corpus."""
    return [
        f"upstream.source={upstream_folder}", "upstream.name=tiny", "data=librispeech", f"data.root={librispeech}",
        f"task.lexicon={librispeech}/lexicon.txt", "task.hidden=32", "data.batch_size=4", "data.workers=0",
        "data.buckets=2",
        "trainer.steps=20", "trainer.lr=1e-3", "trainer.log_every=1", "trainer.eval_every=20", "trainer.device=cpu",
        "trainer.checkpoint_every=5", "trainer.threads=1",
    ]  # fmt: skip


@pytest.fixture
def cli():
    return speechft
