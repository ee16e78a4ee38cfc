"""What several tests make: a very small upstream, a tone, a run of the command."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save_upstream(folder: Path, family: str = "hubert", norm: str = "group", seed: int = 0, **options) -> Path:
    """A very small model with random weights, saved by transformers itself."""
    import transformers

    classes = {
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
        "unispeech-sat": (transformers.UniSpeechSatConfig, transformers.UniSpeechSatModel),
        "data2vec-audio": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel),
        "sew": (transformers.SEWConfig, transformers.SEWModel),
    }
    config_class, model_class = classes[family]
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "conv_dim": (24, 24, 24), "conv_kernel": (20, 8, 8), "conv_stride": (16, 5, 4), "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": norm,
        "conv_bias": norm == "layer", "do_stable_layer_norm": norm == "layer",
    }  # fmt: skip
    if family == "data2vec-audio":  # a stack of small convolutions for positions; no weight norm, no stable layer norm
        settings |= {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7}
        settings = {
            key: value for key, value in settings.items() if key not in ("feat_extract_norm", "do_stable_layer_norm")
        }
    if family == "sew":
        del settings["num_feat_extract_layers"], settings["do_stable_layer_norm"]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**settings, **options}))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "sampling_rate": 16000}\n')
    return folder


def superb_settings(*overrides: str) -> dict[str, Any]:
    """`configs/eval.yaml`, composed once (Hydra takes some tenths of a second) and the caller's to change."""
    return deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    from speechft.superb.settings import compose

    return compose(overrides)


def tone(seconds: float, pitch: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """A harmonic tone in noise, `[samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)) * 0.2 + 0.01 * noise


def speechft(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechft", *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def inside(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in this process, for seconds less: another has been asked whether it starts at all."""
    from speechft.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*map(str, words)])
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
