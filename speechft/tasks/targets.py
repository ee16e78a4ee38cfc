"""Cluster labels for masked prediction: k-means over frame features, computed once and kept in the cache.

HuBERT (2106.07447, section II-A) clusters MFCCs first and, in later iterations, a hidden layer of the model before;
section II-C allows several code books at once, and product quantisation: parts of a feature vector clustered apart. A
code book here is one entry of `task.codebooks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.console import progress
from speechft.data.loader import in_order, read_cut
from speechft.files import cache_dir, sha256_json, whole_file
from speechft.tasks.frame_features import featurizer

if TYPE_CHECKING:
    from lhotse import CutSet
    from torch import Tensor

_VERSION = 5  # of what labels mean: part of the key they are cached under


def make_targets(
    cuts: CutSet, codebook: Mapping[str, Any], seed: int, first_centre: float = 0.0125, cache: Path | None = None
) -> dict[str, np.ndarray]:
    """Labels at 50 frames a second for every cut.

    Args:
        cuts: the corpus.
        codebook: what to cluster (see `frame_features.featurizer`); `clusters`; `splits`: into how many equal parts the
            feature vectors are cut, each with clusters of its own (product quantisation); `whiten`: how many principal
            components to keep, see `Whitening` (None: features as they are).
        seed: of the k-means, of the whitening, and of the frames they are fitted on.
        first_centre: the middle of the upstream's first frame, in seconds.
        cache: where labels are kept, by a hash of everything they depend on.

    Returns:
        cut id -> `[frames, splits]` uint16; frame t is centred at `first_centre` + 0.02 t seconds.
    """
    from sklearn.cluster import MiniBatchKMeans

    options = dict(codebook)
    clusters, splits, whiten = int(options.pop("clusters")), int(options.pop("splits", 1)), options.pop("whiten", None)
    features, source = featurizer(options)
    described = {key: value for key, value in options.items() if key not in ("path", "upstream")}
    identity = [source, sorted((cut.id, round(cut.duration, 4)) for cut in cuts), described, clusters, splits, whiten,
                seed, first_centre, _VERSION]  # fmt: skip
    file = (cache or cache_dir() / "targets") / f"{sha256_json(identity)[:24]}.npz"
    if file.is_file():
        with np.load(file) as kept:  # each access reads the array anew, so each is read once
            ids, counts, flat = kept["ids"].tolist(), kept["counts"], kept["labels"]
        return {id: flat[start:end] for id, start, end in zip(ids, *_spans(counts), strict=True)}

    generator = np.random.default_rng(seed)
    sample = [cut for cut in cuts if generator.random() < min(1.0, 1500 / len(cuts))] or list(cuts)[:100]
    picked: list[np.ndarray] = []
    share = min(1.0, 200_000 / max(1.0, 50 * sum(cut.duration for cut in sample)))
    for start in range(0, len(sample), 16):  # a few at a time: wide features of all frames would fill the memory
        for item in features([read_cut(cut) for cut in sample[start : start + 16]]):
            frames = _at_50_hz(*item, first_centre)
            picked.append(frames[generator.random(len(frames)) < share])
    chosen = np.concatenate(picked)
    chosen = chosen[generator.permutation(len(chosen))]
    turn = Whitening.fit(chosen, int(whiten), generator) if whiten else None
    chosen = turn(chosen) if turn else chosen
    books = [MiniBatchKMeans(clusters, batch_size=10_000, n_init=3, random_state=seed, max_no_improvement=50)
             .fit(part).cluster_centers_ for part in _parts(chosen, splits)]  # fmt: skip

    labels: dict[str, np.ndarray] = {}
    with progress(f"clusters of {options['features']}", len(cuts), 0) as advance:
        for batch in in_order(cuts, 120.0):
            for cut, item in zip(batch.cuts, features(batch.waves), strict=True):
                frames = _at_50_hz(*item, first_centre)
                parts = _parts(turn(frames) if turn else frames, splits)
                columns = [_nearest(part, book) for book, part in zip(books, parts, strict=True)]
                labels[cut.id] = np.stack(columns, axis=1).astype(np.uint16)
            advance(len(labels), "")
    ids = sorted(labels)
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, ids=np.array(ids), counts=np.array([len(labels[id]) for id in ids]),
                 labels=np.concatenate([labels[id] for id in ids]))  # fmt: skip
    return labels


@dataclass(frozen=True)
class Whitening:
    """Principal components of equal variance, turned by a random rotation.

    Cutting principal components into parts would put all that varies into the first part; rotated, all parts share it.
    And where one component is half of all variance, as in Whisper's layers, clusters of unscaled components tell little
    but that one: on labels of Whisper base (layers 4 and 6, 12 x 64 clusters, speechocean762) a linear CTC probe has
    83 % PER, on whitened ones 60 %.

    Attributes:
        mean: `[dim]`, of the features it was fitted on.
        matrix: `[dim, components]`.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def fit(cls, frames: np.ndarray, components: int, generator: np.random.Generator) -> Whitening:
        """Fit to frames `[count, dim]`; every dimension is scaled to unit variance first."""
        mean, scale = frames.mean(0), frames.std(0) + 1e-5
        scaled = (frames - mean) / scale
        values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        order = np.argsort(values)[::-1][:components]
        kept = vectors[:, order] / np.sqrt(values[order].clip(min=1e-6))
        turn = np.linalg.qr(generator.standard_normal((kept.shape[1], kept.shape[1])))[0]
        return cls(mean, (kept @ turn / scale[:, None]).astype(np.float32))

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return (frames - self.mean) @ self.matrix


def _nearest(frames: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cluster of every frame (scikit-learn's own `predict` costs milliseconds a call, whatever it is given)."""
    return (np.square(centres).sum(1) - 2 * frames @ centres.T).argmin(1)


def _parts(features: np.ndarray, splits: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(part) for part in np.array_split(features, splits, axis=1)]


def _spans(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(counts)
    return ends - counts, ends


def _at_50_hz(features: Tensor, rate: float, first: float, wanted: float) -> np.ndarray:
    """The feature frames nearest to `wanted` + 0.02 t seconds; theirs are at `first` + t / `rate`."""
    count = max(1, int((len(features) / rate + first - wanted) / 0.02) + 1)
    places = np.rint((wanted + 0.02 * np.arange(count) - first) * rate).clip(0, len(features) - 1).astype(int)
    return features.numpy()[places].astype(np.float32)
