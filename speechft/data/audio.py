"""Reading audio: any rate and channel count in, 16 kHz mono float32 out (soundfile decodes, torchaudio resamples)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from speechft.errors import SpeechFTError

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
"""Samples a second that every upstream expects."""


@dataclass(frozen=True)
class AudioInfo:
    """A file's header: ``samples`` per channel at ``rate`` (Hz), ``channels``."""

    samples: int
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def audio_info(path: str | Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        SpeechFTError: the file is missing or is no audio.
    """
    import soundfile

    try:
        header = soundfile.info(str(path))
    except (RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error
    return AudioInfo(header.frames, header.samplerate, header.channels)


def remembered_info(path: str | Path) -> AudioInfo:
    """`audio_info`, read once in a process as long as the file is the same: corpora are listed again and again.

    Raises:
        SpeechFTError: as `audio_info`.
    """
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _info(str(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _info(path: str, size: int, changed: int) -> AudioInfo:
    del size, changed
    return audio_info(path)


def load_audio(path: str | Path, start: float = 0.0, seconds: float | None = None) -> torch.Tensor:
    """Read audio as 16 kHz mono.

    Args:
        path: any format libsndfile reads (wav, flac, ogg, mp3 ...).
        start: where to begin, in seconds.
        seconds: how much to read, in seconds; None reads to the end.

    Returns:
        ``[samples]`` float32 in [-1, 1], 16 000 samples a second.

    Raises:
        SpeechFTError: missing, broken, empty, or holding values that are not finite.
    """
    import numpy as np
    import soundfile
    import torch

    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            file.seek(min(round(start * rate), file.frames))
            frames = -1 if seconds is None else round(seconds * rate)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error
    if samples.shape[0] == 0:
        raise SpeechFTError(f"{path} holds no audio", "remove it from the corpus or replace it")
    if not np.isfinite(samples).all():
        raise SpeechFTError(f"{path} holds samples that are not finite", "remove it from the corpus or replace it")
    wave = torch.from_numpy(samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0].copy())
    if rate != SAMPLE_RATE:
        wave = _resampler(rate)(wave)
    return wave


@functools.cache
def use_soundfile() -> None:
    """Let lhotse decode by soundfile too, in this process. Its own choice would be to look for the program sph2pipe for
    SPHERE files, and to try four other decoders on a broken file. `LHOTSE_AUDIO_BACKEND` still wins.
    """
    from lhotse.audio.backend import LibsndfileBackend, set_current_audio_backend

    if "LHOTSE_AUDIO_BACKEND" not in os.environ:
        set_current_audio_backend(LibsndfileBackend())


@lru_cache(maxsize=16)
def _resampler(rate: int):
    from torchaudio.transforms import Resample

    return Resample(rate, SAMPLE_RATE)


def missing_audio(path: str | Path) -> SpeechFTError:
    """The error of a file that is not there."""
    return SpeechFTError(f"audio file {path} is missing", "check the corpus folder, or that the drive is mounted")


def _unreadable(path: str | Path, error: Exception) -> SpeechFTError:
    if not Path(path).exists():
        return missing_audio(path)
    reason = str(error).rsplit(": ", 1)[-1]
    return SpeechFTError(f"audio file {path} cannot be read ({reason})", "replace it or remove it from the corpus")
