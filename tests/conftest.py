"""Small upstreams and corpora that every test can use, made on the spot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

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


def save_upstream(folder: Path, family: str = "hubert", norm: str = "group", seed: int = 0, **options) -> Path:
    """A very small model with random weights, saved by transformers itself."""
    import transformers

    classes = {
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
    }
    config_class, model_class = classes[family]
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "conv_dim": (24, 24, 24), "conv_kernel": (20, 8, 8), "conv_stride": (16, 5, 4), "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": norm,
        "conv_bias": norm == "layer", "do_stable_layer_norm": norm == "layer",
    }  # fmt: skip
    torch.manual_seed(seed)
    model = model_class(config_class(**{**settings, **options}))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "sampling_rate": 16000}\n')
    return folder


@pytest.fixture(scope="session")
def upstream_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_upstream(tmp_path_factory.mktemp("upstream") / "tiny_hubert")


def tone(seconds: float, pitch: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """A harmonic tone in noise, `[samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)) * 0.2 + 0.01 * noise


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
                wave = np.concatenate([tone(0.35, pitches[word], seed=number) for word in words])
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


def speechft(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechft", *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def cli():
    return speechft
