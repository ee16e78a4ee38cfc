"""How good a separated or enhanced waveform is: the part of asteroid that s3prl's SE and SS experts use.

asteroid 0.7 brings PyTorch Lightning, an old torchmetrics and 20 packages more for three numbers. They are here as
`asteroid.metrics.get_metrics` has them: SI-SDR by its definition (Le Roux et al., 1811.02508, of waveforms with their
means taken off), STOI by pystoi, PESQ by the package pesq (wide band at 16 kHz). Where asteroid is installed, s3prl
gets asteroid itself (compat.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from speechft.errors import SpeechFTError

_EPS = 1e-8
_KEPT = 20_000  # mixtures whose own scores are remembered


def si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio of one waveform `[samples]`, in dB."""
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = reference * ((reference * estimate).sum() / ((reference**2).sum() + _EPS))
    distortion = estimate - target
    return float(10 * np.log10((target**2).sum() / ((distortion**2).sum() + _EPS) + _EPS))


def _stoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    from pystoi import stoi

    return float(stoi(reference, estimate, rate))


def _pesq(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    from pesq import pesq

    return float(pesq(rate, reference, estimate, {8_000: "nb", 16_000: "wb"}[rate]))


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "si_sdr": lambda reference, estimate, rate: si_sdr(reference, estimate),
    "stoi": _stoi,
    "pesq": _pesq,
}
_of_mixtures: dict[bytes, float] = {}


def get_metrics(
    mix: np.ndarray,
    clean: np.ndarray,
    estimate: np.ndarray,
    sample_rate: int = 16_000,
    metrics_list: Sequence[str] = ("si_sdr", "stoi", "pesq"),
    compute_permutation: bool = False,
) -> dict[str, float]:
    """Each metric of the estimate, and as `input_METRIC` of the mixture itself; means over sources.

    Every evaluation of a training asks for the same mixtures: their scores are computed once in a process.

    Args:
        mix: `[1, samples]`; clean, estimate: `[sources, samples]`, in the same order.
        sample_rate: Hz.
        compute_permutation: must stay False: the order is the caller's.

    Raises:
        ValueError: shapes that do not fit, a permutation.
    """
    if compute_permutation or mix.shape != (1, clean.shape[-1]) or clean.shape != estimate.shape:
        raise ValueError(f"not one mixture {mix.shape} and sources {clean.shape}, {estimate.shape} in their order")
    found: dict[str, float] = {}
    for name in metrics_list:
        score = _METRICS[name]
        key = hashlib.sha256(name.encode() + mix.tobytes() + clean.tobytes()).digest()
        if key not in _of_mixtures:
            if len(_of_mixtures) >= _KEPT:
                _of_mixtures.clear()
            _of_mixtures[key] = float(np.mean([score(one, mix[0], sample_rate) for one in clean]))
        found[f"input_{name}"] = _of_mixtures[key]
        pairs = zip(clean, estimate, strict=True)
        found[name] = float(np.mean([score(one, guess, sample_rate) for one, guess in pairs]))
    return found


class PITLossWrapper:
    """Stands where s3prl imports asteroid's; only its SI-SDR loss, which no recipe uses, would make one."""

    def __init__(self, *_: object, **__: object) -> None:
        raise SpeechFTError("SE and SS by the SI-SDR loss need asteroid, which is missing", "pip install asteroid")
