"""Cluster labels for masked prediction: k-means over frame features, computed once and kept in the cache.

HuBERT (2106.07447, section II-A) clusters MFCCs first and, in later iterations, a hidden layer of the model before;
section II-C allows several code books at once, and product quantisation: parts of a feature vector clustered apart. A
code book here is one entry of `task.codebooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechft.data.loader import in_order, read_cut
from speechft.errors import MissingExtraError, SpeechFTError, UsageError
from speechft.files import cache_dir, sha256_file, sha256_json, whole_file

if TYPE_CHECKING:
    from lhotse import CutSet

Featurize = Callable[[list[Tensor]], list[tuple[Tensor, float, float]]]
"""Waveforms -> for each: features `[frames, dim]`, frames a second, the first frame's centre in seconds."""


def make_targets(
    cuts: CutSet, codebook: Mapping[str, Any], seed: int, cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Labels at 50 frames a second for every cut.

    Args:
        cuts: the corpus.
        codebook: `features` (`mfcc`, `logmel`, `upstream` or `onnx`), `clusters`, what the features need, and `splits`:
            into how many equal parts the feature vectors are cut, each with clusters of its own (product quantisation).
        seed: of the k-means and of the frames it is fitted on.
        cache: where labels are kept, by a hash of everything they depend on.

    Returns:
        cut id -> `[frames, splits]` uint16; frame t is centred at 0.0125 + 0.02 t seconds, as the upstream's is.
    """
    from sklearn.cluster import MiniBatchKMeans

    options = dict(codebook)
    clusters, splits = int(options.pop("clusters")), int(options.pop("splits", 1))
    features, source = _featurizer(options)
    described = {key: value for key, value in options.items() if key not in ("path", "upstream")}
    identity = [source, sorted((cut.id, round(cut.duration, 4)) for cut in cuts), described, clusters, splits, seed, 3]
    file = (cache or cache_dir() / "targets") / f"{sha256_json(identity)[:24]}.npz"
    if file.is_file():
        with np.load(file) as kept:  # each access reads the array anew, so each is read once
            ids, counts, flat = kept["ids"].tolist(), kept["counts"], kept["labels"]
        return {id: flat[start:end] for id, start, end in zip(ids, *_spans(counts), strict=True)}

    generator = np.random.default_rng(seed)
    sample = [cut for cut in cuts if generator.random() < min(1.0, 1500 / len(cuts))] or list(cuts)[:100]
    frames = np.concatenate([_at_50_hz(*item) for item in features([read_cut(cut) for cut in sample])])
    chosen = generator.permutation(len(frames))[:200_000]
    books = [MiniBatchKMeans(clusters, batch_size=10_000, n_init=3, random_state=seed, max_no_improvement=50)
             .fit(part) for part in _parts(frames[chosen], splits)]  # fmt: skip

    labels: dict[str, np.ndarray] = {}
    for batch in in_order(cuts, 120.0):
        for cut, item in zip(batch.cuts, features(batch.waves), strict=True):
            parts = _parts(_at_50_hz(*item), splits)
            columns = [book.predict(part) for book, part in zip(books, parts, strict=True)]
            labels[cut.id] = np.stack(columns, axis=1).astype(np.uint16)
    ids = sorted(labels)
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, ids=np.array(ids), counts=np.array([len(labels[id]) for id in ids]),
                 labels=np.concatenate([labels[id] for id in ids]))  # fmt: skip
    return labels


def _parts(features: np.ndarray, splits: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(part) for part in np.array_split(features, splits, axis=1)]


def _spans(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(counts)
    return ends - counts, ends


def _at_50_hz(features: Tensor, rate: float, first: float) -> np.ndarray:
    """The feature frames nearest to the upstream's frame centres."""
    count = max(1, int((len(features) / rate + first - 0.0125) / 0.02) + 1)
    places = np.rint((0.0125 + 0.02 * np.arange(count) - first) * rate).clip(0, len(features) - 1).astype(int)
    return features.numpy()[places].astype(np.float32)


def _featurizer(options: dict[str, Any]) -> tuple[Featurize, str]:
    """The features of a code book, and a hash of what computes them."""
    kind = options.get("features")
    if kind == "mfcc":
        return _mfcc, "mfcc"
    if kind == "logmel":
        return _logmel(float(options.get("context", 0.0))), "logmel"
    if kind == "upstream":
        return _upstream(str(options["upstream"]), int(options["layer"]))
    if kind == "onnx":
        return _onnx(Path(str(options["path"])).expanduser(), float(options.get("delay", 0.0)))
    raise UsageError(f"unknown code book features {kind!r}", "known: mfcc, logmel, upstream, onnx")


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


def _logmel(context: float) -> Featurize:
    """Log-mels, averaged over +-`context` seconds: long contexts tell speakers and channels rather than sounds."""
    from speechft.upstreams.fbank import Fbank

    fbank = Fbank(deltas=0)

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        with torch.inference_mode():
            hidden = fbank(waves)
        results = []
        for item, count in zip(hidden.last, hidden.frames.tolist(), strict=True):
            features = item[:count]
            if context:
                sums = torch.nn.functional.pad(features.double().cumsum(0), (0, 0, 1, 0))
                places = torch.arange(count)
                low, high = (
                    (places - int(100 * context)).clamp(min=0),
                    (places + int(100 * context) + 1).clamp(max=count),
                )
                features = ((sums[high] - sums[low]) / (high - low)[:, None]).float()
            results.append((features, 100.0, 0.0125))
        return results

    return compute


def _upstream(source: str, layer: int) -> tuple[Featurize, str]:
    """A hidden layer of another upstream (HuBERT's later iterations)."""
    from speechft.upstreams.load import load_upstream

    model = load_upstream(source)
    if not 0 <= layer < model.num_layers:
        raise UsageError(f"{source} has no layer {layer}", f"choose 0 to {model.num_layers - 1}")

    def compute(waves: list[Tensor]) -> list[tuple[Tensor, float, float]]:
        with torch.inference_mode():
            hidden = model(waves)
        return [(state[:count], model.frame_rate, 0.0125)
                for state, count in zip(hidden.states[layer], hidden.frames.tolist(), strict=True)]  # fmt: skip

    return compute, model.identity.key


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


def _at_least(wave: Tensor, samples: int) -> Tensor:
    return torch.nn.functional.pad(wave, (0, max(0, samples - wave.numel())))
