"""The part of `torchaudio.sox_effects` that s3prl's data sets use, without SoX.

Effects are lists of strings, as on SoX's command line: `[["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from speechft.errors import SpeechFTError
from speechft.superb.sox_silence import silence


def _channels(wave: Tensor, rate: int, arguments: Sequence[str]) -> tuple[Tensor, int]:
    wanted = int(arguments[0])
    have = wave.shape[0]
    if wanted == have:
        return wave, rate
    if wanted == 1:
        return wave.mean(dim=0, keepdim=True), rate
    if have == 1:
        return wave.repeat(wanted, 1), rate
    raise SpeechFTError(
        f"sox effect 'channels {wanted}' on {have} channels is not supported", "mix down to one channel"
    )


def _rate(wave: Tensor, rate: int, arguments: Sequence[str]) -> tuple[Tensor, int]:
    wanted = int(float(arguments[-1]))
    if wanted == rate:
        return wave, rate
    from torchaudio.functional import resample

    return resample(wave, rate, wanted), wanted


def _clip(wave: Tensor) -> Tensor:
    # SoX works on 32-bit integers, so values are rounded to them and whatever leaves [-1, 1] is clipped
    return (wave * 2.0**31).round().clamp(-(2.0**31), 2.0**31 - 1) / 2.0**31


def _gain(wave: Tensor, rate: int, arguments: Sequence[str]) -> tuple[Tensor, int]:
    options = [argument for argument in arguments if not _is_number(argument)]
    decibels = [float(argument) for argument in arguments if _is_number(argument)]
    factor = 10.0 ** ((decibels[0] if decibels else 0.0) / 20.0)
    if options == ["-n"]:
        return _norm(wave, rate, [str(decibels[0] if decibels else 0.0)])
    if options:
        raise SpeechFTError(f"sox effect 'gain {' '.join(arguments)}' is not supported", "use a plain gain in dB")
    return _clip(wave * factor), rate


def _norm(wave: Tensor, rate: int, arguments: Sequence[str]) -> tuple[Tensor, int]:
    peak = wave.abs().max()
    level = 10.0 ** ((float(arguments[0]) if arguments else 0.0) / 20.0)
    return (wave if peak == 0 else wave * (level / peak)), rate


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_EFFECTS: dict[str, Callable[[Tensor, int, Sequence[str]], tuple[Tensor, int]]] = {
    "channels": _channels,
    "rate": _rate,
    "gain": _gain,
    "norm": _norm,
    "silence": silence,
}


def effect_names() -> list[str]:
    """The effects this module knows."""
    return sorted(_EFFECTS)


def apply_effects_tensor(
    tensor: Tensor, sample_rate: int, effects: Sequence[Sequence[str]], channels_first: bool = True
) -> tuple[Tensor, int]:
    """Apply effects in order.

    Args:
        tensor: `[channels, samples]` float32 in [-1, 1] (`[samples, channels]` unless `channels_first`).
        sample_rate: Hz.
        effects: name and arguments of each.

    Returns:
        The same layout, and the rate after the effects (Hz).

    Raises:
        SpeechFTError: an effect, or a form of one, that is not supported.
    """
    wave = tensor.to(torch.float64)
    wave = wave if channels_first else wave.T
    for name, *arguments in effects:
        if name not in _EFFECTS:
            raise SpeechFTError(f"sox effect {name!r} is not supported", f"supported: {', '.join(effect_names())}")
        wave, sample_rate = _EFFECTS[name](wave, sample_rate, arguments)
    wave = wave.to(torch.float32)
    return (wave if channels_first else wave.T), sample_rate


def apply_effects_file(
    path: str | Path,
    effects: Sequence[Sequence[str]],
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
) -> tuple[Tensor, int]:
    """Read a file and apply effects: see `apply_effects_tensor`."""
    from speechft.superb.compat import load

    wave, rate = load(path, normalize=normalize, format=format)
    wave, rate = apply_effects_tensor(wave, rate, effects)
    return (wave if channels_first else wave.T), rate
