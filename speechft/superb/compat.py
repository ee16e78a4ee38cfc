"""What today's torchaudio, huggingface_hub and PyPI no longer give to s3prl 0.4.18, put back.

`install()` runs before the first import of s3prl. Every patch is applied only where the thing is really missing, so a
future version that brings it back wins. Nothing here changes what is computed.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import types
import wave
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
import torchaudio

from speechft.superb import sound_metrics, sox_effects
from speechft.superb.scopes import swapped


class AudioMetaData(NamedTuple):
    """What `torchaudio.info` used to return: rate in Hz, frames (samples per channel), channels, bits, encoding."""

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def load(
    uri: str | Path | BinaryIO,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
) -> tuple[torch.Tensor, int]:
    """`torchaudio.load` on soundfile.

    Args:
        uri: a path or an open binary file.
        frame_offset, num_frames: which part to read, in samples per channel; -1 reads to the end.
        normalize: must stay True: samples come as float32 in [-1, 1].
        channels_first: `[channels, samples]`, else `[samples, channels]`.
        format, buffer_size, backend: accepted for the signature's sake.

    Returns:
        float32 samples and the rate in Hz.

    Raises:
        RuntimeError: the file cannot be read (what torchaudio raised).
        ValueError: `normalize=False`.
    """
    del format, buffer_size, backend
    import soundfile

    if not normalize:
        raise ValueError("only normalize=True is supported")
    with soundfile.SoundFile(uri if hasattr(uri, "read") else str(uri)) as file:
        if frame_offset:
            file.seek(min(frame_offset, file.frames))
        samples = file.read(num_frames, dtype="float32", always_2d=True)
        rate = file.samplerate
    tensor = torch.from_numpy(samples)
    return (tensor.T.contiguous() if channels_first else tensor), rate


def info(uri: str | Path | BinaryIO, format: str | None = None, **_: Any) -> AudioMetaData:
    """`torchaudio.info` on soundfile."""
    del format
    import soundfile

    header = soundfile.info(uri if hasattr(uri, "read") else str(uri))
    bits = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
    width = bits.get(header.subtype, 0)
    encoding = {"FLAC": "FLAC", "OGG": "VORBIS"}.get(header.format) or ("PCM_F" if width == 64 else "PCM_S")
    return AudioMetaData(header.samplerate, header.frames, header.channels, width, encoding)


def _load_works() -> bool:
    """Whether `torchaudio.load` reads a file: from 2.9 on it exists but raises without TorchCodec."""
    if not hasattr(torchaudio, "load"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(b"\x00\x10" * 16)
        try:
            samples, rate = torchaudio.load(str(path))
        except Exception:  # ImportError, RuntimeError and OSError have all been seen here, by version of TorchCodec
            return False
        return tuple(samples.shape) == (1, 16) and rate == 16_000


def _patch_backend() -> None:
    # s3prl.hub calls set_audio_backend at import; there is only one backend now, so there is nothing to set.
    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda *_, **__: None
    if not hasattr(torchaudio, "get_audio_backend"):
        torchaudio.get_audio_backend = lambda: "soundfile"
    if not hasattr(torchaudio, "list_audio_backends"):
        torchaudio.list_audio_backends = lambda: ["soundfile"]


def _patch_reading() -> None:
    # Every data set reads with torchaudio.load; 2.9 moved it to TorchCodec, which needs FFmpeg's libraries.
    if getattr(torchaudio, "load", None) is not load and not _load_works():
        torchaudio.load = load
    if not hasattr(torchaudio, "info"):
        torchaudio.info = info


def _patch_sox() -> None:
    # KS, ASV and QbE import torchaudio.sox_effects, gone since 2.9.
    if "torchaudio.sox_effects" in sys.modules or importlib.util.find_spec("torchaudio.sox_effects") is not None:
        return
    sys.modules["torchaudio.sox_effects"] = sox_effects
    torchaudio.sox_effects = sox_effects


def _patch_pysox() -> None:
    # ASV imports pysox, which asks a shell for the program sox, and both complain where there is none. `trimmed` does
    # what ASV wants of it, so it is imported without being heard.
    if "sox" in sys.modules or importlib.util.find_spec("sox") is None or shutil.which("sox"):
        return
    import logging

    with swapped(os, "popen", lambda *_: io.StringIO()), swapped(logging.root.manager, "disable", logging.WARNING):
        importlib.import_module("sox")


def _patch_hub() -> None:
    # The runner imports HfFolder and Repository for pushing to the hub, which is never asked of it here.
    import huggingface_hub

    for name in ("HfFolder", "Repository"):
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, type(name, (), {"__doc__": "Stand-in: pushing is switched off."}))


def _patch_catalyst() -> None:
    # KS imports a sampler of catalyst that it uses under distributed training only.
    if "catalyst" in sys.modules or importlib.util.find_spec("catalyst") is not None:
        return
    package, data, sampler = (types.ModuleType(n) for n in ("catalyst", "catalyst.data", "catalyst.data.sampler"))
    sampler.DistributedSamplerWrapper = type("DistributedSamplerWrapper", (), {})  # type: ignore[attr-defined]
    package.data, data.sampler = data, sampler  # type: ignore[attr-defined]
    _enter(package, data, sampler)


def _patch_asteroid() -> None:
    # SE and SS import two names of asteroid, which is large and old.
    if "asteroid" in sys.modules or importlib.util.find_spec("asteroid") is not None:
        return
    package, metrics, losses = (types.ModuleType(n) for n in ("asteroid", "asteroid.metrics", "asteroid.losses"))
    metrics.get_metrics = sound_metrics.get_metrics  # type: ignore[attr-defined]
    losses.PITLossWrapper = sound_metrics.PITLossWrapper  # type: ignore[attr-defined]
    package.metrics, package.losses = metrics, losses  # type: ignore[attr-defined]
    _enter(package, metrics, losses)


def _enter(*modules: types.ModuleType) -> None:
    for module in modules:  # find_spec() of a module without a spec raises, so the stand-ins get one
        module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
        sys.modules[module.__name__] = module


def _patch_checkpoints() -> None:
    # s3prl's checkpoints hold the command line's Namespace; torch.load (weights only) must be told that it is harmless.
    torch.serialization.add_safe_globals([argparse.Namespace])


def install() -> None:
    """Apply what is missing. Calling it again changes nothing."""
    patches = (
        _patch_backend, _patch_reading, _patch_sox, _patch_pysox, _patch_hub, _patch_catalyst, _patch_asteroid,
        _patch_checkpoints,
    )  # fmt: skip
    for patch in patches:
        patch()
