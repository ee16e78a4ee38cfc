"""Frame features to be clustered: MFCCs, log-mels, hidden layers of an upstream, voices, any network saved as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.errors import MissingExtraError, SpeechFTError, UsageError
from speechft.files import sha256_file
from speechft.tasks.codebooks import OF_BOOKS
from speechft.upstreams.base import Upstream

Featurize = Callable[[list[Tensor]], list[tuple[Tensor, float, float]]]
"""Waveforms -> for each: features `[frames, dim]`, frames a second, the first frame's centre in seconds."""


_OPTIONS: dict[str, tuple[str, ...]] = {
    "mfcc": (), "logmel": ("normalize",), "upstream": ("upstream", "layers", "half"), "voice": ("path",),
    "onnx": ("path", "delay"),
}  # fmt: skip


def featurizer(options: dict[str, Any], own: Upstream | None = None) -> tuple[Featurize, str]:
    """The features of a code book, and a hash of what computes them.

    Args:
        options: `features` (`mfcc`, `logmel`, `upstream`, `voice`, `onnx`) with what each needs: `normalize` (of
            log-mels: each waveform to zero mean and unit variance first); `upstream` and `layers`; `path` (`voice`: see
            `voice.VoiceEncoder`); `path` and `delay` (seconds). With `context` (seconds;
            null: the whole utterance) every frame gets the `statistics` (`mean`, `std`) of the frames that far around
            it instead of its own: what lasts, voices and channels, rather than sounds.
        own: what `upstream: own` means: the upstream that is to be trained, as it starts; features of upstreams are
            computed on its device. Its `layers` may be left out: then the one at three quarters of its depth, such as
            the ninth of twelve, whose clusters HuBERT's large models learned from (2106.07447, section IV).

    Raises:
        UsageError: unknown features or statistics.
    """
    kind = options.get("features")
    common = ("features", "context", "statistics")
    needed = _OPTIONS.get(str(kind), tuple(options))
    unknown = sorted(options.keys() - {*common, *needed})
    if unknown:
        known = ", ".join((*common, *needed, *OF_BOOKS, "weight", "layer", "clean"))
        raise UsageError(f"unknown setting of a code book of {kind}: {', '.join(unknown)}", f"known: {known}")
    compute: Featurize
    if kind == "mfcc":
        compute, source = _mfcc, "mfcc"
    elif kind == "logmel":
        compute, source = _logmel(bool(options.get("normalize", False))), "logmel"
    elif kind == "upstream":
        name, layers = options.get("upstream"), options.get("layers")
        model = own if name == "own" else None
        if model is not None and not layers:
            layers = [round(0.75 * (model.num_layers - 1))]
        if not name or not layers:
            raise UsageError("a code book of an upstream needs `upstream` and `layers`", "for example layers: [4, 6]")
        device = torch.device("cpu") if own is None else next(own.parameters()).device
        compute, source = _upstream(model or str(name), [int(layer) for layer in layers],
                                    bool(options.get("half", False)), device)  # fmt: skip
    elif kind == "voice":
        if not options.get("path"):
            raise UsageError("a code book of voices needs `path`", "give a speaker encoder's pretrained.pt")
        compute, source = _voice(Path(str(options["path"])).expanduser())
    elif kind == "onnx":
        compute, source = _onnx(Path(str(options["path"])).expanduser(), float(options.get("delay", 0.0)))
    else:
        raise UsageError(f"unknown code book features {kind!r}", "known: mfcc, logmel, upstream, voice, onnx")
    if "context" not in options:
        return compute, source
    statistics = tuple(options.get("statistics", ("mean",)))
    if not statistics or not set(statistics) <= {"mean", "std"}:
        raise UsageError(f"unknown statistics {list(statistics)}", "known: mean, std")
    context = options["context"]

    def around(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        return [
            (_statistics(features, statistics, len(features) if context is None else round(float(context) * rate)),
             rate, first)
            for features, rate, first in compute(waves)
        ]  # fmt: skip

    return around, source


def _statistics(features: Tensor, statistics: Sequence[str], reach: int) -> Tensor:
    """Mean and deviation over `reach` frames to either side: `[frames, dim]` -> `[frames, dim * statistics]`."""
    count = len(features)
    places = torch.arange(count)
    low, high = (places - reach).clamp(min=0), (places + reach + 1).clamp(max=count)
    centre = features.double().mean(0)

    def mean(values: Tensor) -> Tensor:
        sums = torch.nn.functional.pad(values.cumsum(0), (0, 0, 1, 0))
        return (sums[high] - sums[low]) / (high - low)[:, None]

    centred = features.double() - centre
    first = mean(centred)
    found = {"mean": first + centre}
    if "std" in statistics:
        found["std"] = (mean(centred.square()) - first.square()).clamp(min=0).sqrt()
    return torch.cat([found[name] for name in statistics], dim=1).float()


def _mfcc(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
    """13 MFCCs with first and second deltas, 100 a second (HuBERT's first iteration)."""
    from torchaudio.compliance.kaldi import mfcc
    from torchaudio.functional import compute_deltas

    results = []
    for wave in waves:
        base = mfcc(_at_least(wave, 400)[None] * 32768, use_energy=False).T
        first = compute_deltas(base)
        stacked = torch.cat([base, first, compute_deltas(first)]).T
        results.append(((stacked - stacked.mean(0)) / (stacked.std(0) + 1e-5), 100.0, 0.0125))
    return results


def _logmel(normalize: bool) -> Featurize:
    from speechft.upstreams.fbank import Fbank

    fbank = Fbank(deltas=0)

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        with torch.inference_mode():
            hidden = fbank([_normal(wave) for wave in waves] if normalize else waves)
        return [(item[:count], 100.0, 0.0125)
                for item, count in zip(hidden.last, hidden.frames.tolist(), strict=True)]  # fmt: skip

    return compute


def _upstream(source: str | Upstream, layers: list[int], half: bool, device: torch.device) -> tuple[Featurize, str]:
    """Hidden layers of an upstream side by side (HuBERT's later iterations); `half` computes them in bfloat16."""
    from speechft.upstreams.load import load_upstream

    model = load_upstream(source).to(device) if isinstance(source, str) else source.eval()
    wrong = [layer for layer in layers if not 0 <= layer < model.num_layers]
    if wrong:
        raise UsageError(f"{model.identity.name} has no layers {wrong}", f"choose from 0 to {model.num_layers - 1}")

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            hidden = model([wave.to(device) for wave in waves])
        states = torch.cat([hidden.states[layer] for layer in layers], dim=2).cpu()
        return [(state[:count], model.frame_rate, model.first_centre)
                for state, count in zip(states, hidden.frames.tolist(), strict=True)]  # fmt: skip

    return compute, f"{model.identity.key}{'-bf16' if half else ''}"


def _voice(path: Path) -> tuple[Featurize, str]:
    """Who speaks, from 1.6 s around each point, every 0.8 s."""
    from speechft.tasks.voice import HOP_SECONDS, WINDOW_SECONDS, VoiceEncoder

    encoder = VoiceEncoder(path)

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        return [(item, 1 / HOP_SECONDS, WINDOW_SECONDS / 2) for item in encoder(waves)]

    return compute, sha256_file(path)


def _onnx(path: Path, delay: float) -> tuple[Featurize, str]:
    """A frozen network: waveform `[1, samples]` -> `[1, frames, dim]` at 50 a second, `delay` seconds late."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", f"the code book {path.name}") from error
    if not path.is_file():
        raise SpeechFTError(f"{path} is missing", "give the path of the ONNX file in task.codebooks")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        results = []
        for wave in waves:
            late = torch.nn.functional.pad(_at_least(wave, 400), (0, round(delay * 16_000)))
            features = session.run(None, {name: late[None].numpy()})[0][0]
            results.append((torch.from_numpy(features), 50.0, 0.0125 - delay))
        return results

    return compute, sha256_file(path)


def _normal(wave: Tensor) -> Tensor:
    return (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt()


def _at_least(wave: Tensor, samples: int) -> Tensor:
    return torch.nn.functional.pad(wave, (0, max(0, samples - wave.numel())))
