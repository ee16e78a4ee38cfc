"""Cluster labels for masked prediction: k-means over frame features, computed once and kept in the cache.

HuBERT (2106.07447, section II-A) clusters MFCCs first and, in later iterations, a hidden layer of the model before;
section II-C allows several code books at once, and product quantisation: parts of a feature vector clustered apart. A
code book here is one entry of `task.codebooks`. With `regress: true` the target is not a cluster but the features
themselves, as when one network is distilled into another (DistilHuBERT, 2110.01900): more is said in every frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.console import progress
from speechft.data.augment import coloured
from speechft.data.loader import in_order, read_cut
from speechft.errors import UsageError
from speechft.files import cache_dir, sha256_json, whole_file
from speechft.tasks.frame_features import Featurize, featurizer
from speechft.tasks.projections import Discriminant, Whitening
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet
    from torch import Tensor

_OF_BOOKS = ("clusters", "splits", "whiten", "discriminate", "channels", "regress")
_VERSION = 6  # of what labels mean: part of the key they are cached under


def make_targets(
    cuts: CutSet,
    codebooks: Sequence[Mapping[str, Any]],
    seed: int,
    first_centre: float = 0.0125,
    cache: Path | None = None,
    own: Upstream | None = None,
) -> list[dict[str, np.ndarray]]:
    """Labels at 50 frames a second for every cut, from each code book.

    Code books of the same features share the pass that computes them.

    Args:
        cuts: the corpus.
        codebooks: what to cluster (see `frame_features.featurizer`); `clusters`; `splits`: into how many equal parts
            the feature vectors are cut, each with clusters of its own (product quantisation); `whiten`: how many
            principal components to keep, see `Whitening` (None: features as they are). Or `regress: true` with
            `whiten`: those components are the target; with `context: null`, which makes all frames of an utterance
            equal, one vector for the utterance; and with `discriminate` in place of `whiten` its components are
            those of `projections.Discriminant`, fitted to halves that have passed through frequency responses of
            their own of the strength `channels` (0 if not said; see `augment.coloured`): what a channel changes is left
            out then.
        seed: of the k-means, of the whitening, and of the frames they are fitted on.
        first_centre: the middle of the upstream's first frame, in seconds.
        cache: where labels are kept, by a hash of everything they depend on.
        own: see `frame_features.featurizer`.

    Raises:
        UsageError: a code book with an unknown or impossible setting.

    Returns:
        For each code book: cut id -> `[frames, splits]` uint16, or `[frames or 1, components]` float16 where it
        regresses; frame t is centred at `first_centre` + 0.02 t seconds.
    """
    corpus = [_identity_of(cut) for cut in cuts]
    groups: dict[str, list[int]] = {}
    for number, codebook in enumerate(codebooks):
        groups.setdefault(sha256_json(_features_of(codebook)), []).append(number)
    found: list[dict[str, np.ndarray]] = [{} for _ in codebooks]
    for numbers in groups.values():
        options = _features_of(codebooks[numbers[0]])
        features, source = featurizer(options, own)
        described = {key: value for key, value in options.items() if key not in ("path", "upstream")}
        files: dict[int, Path] = {}
        books: dict[int, _Book | _Vectors] = {}
        for number in numbers:
            book = (
                _Vectors.read(codebooks[number]) if codebooks[number].get("regress") else _Book.read(codebooks[number])
            )
            identity = [source, corpus, described, *book.identity, seed, first_centre, _VERSION]
            file = (cache or cache_dir() / "targets") / f"{sha256_json(identity)[:24]}.npz"
            if file.is_file():
                found[number] = _read(file)
            else:
                files[number], books[number] = file, book
        if not books:
            continue
        _fit(list(books.values()), cuts, features, seed, first_centre)
        with progress(f"clusters of {options['features']}", len(cuts), 0) as advance:
            done = 0
            for batch in in_order(cuts, 120.0):
                for cut, item in zip(batch.cuts, features(batch.waves), strict=True):
                    frames = _at_50_hz(*item, first_centre)
                    for number, book in books.items():
                        found[number][cut.id] = book.labels(frames)
                done += len(batch.cuts)
                advance(done, "")
        for number, file in files.items():
            _write(file, found[number])
    return found


def _fit(books: list[_Book | _Vectors], cuts: CutSet, features: Featurize, seed: int, first_centre: float) -> None:
    """Fit code books of the same features, each to what it needs."""
    sample, halves = None, {}
    for book in books:
        if isinstance(book, _Vectors) and book.channels is not None:
            if book.channels not in halves:
                halves[book.channels] = _halves(cuts, features, seed, book.channels)
            book.turn = Discriminant.fit(halves[book.channels], book.components)
        else:
            sample = _sample(cuts, features, seed, first_centre) if sample is None else sample
            book.fit(sample, seed)


def _features_of(codebook: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in codebook.items() if key not in _OF_BOOKS}


def _identity_of(cut: Any) -> list[Any]:
    """A cut by its name, its place in the recording, and its file's size and time of change."""
    parts = [Path(source.source).stat() for source in cut.recording.sources]
    return [cut.id, cut.start, round(cut.duration, 4), [[part.st_size, part.st_mtime_ns] for part in parts]]


def _sample(cuts: CutSet, features: Featurize, seed: int, first_centre: float) -> np.ndarray:
    """At most about 200 000 frames of at most about 1 500 cuts, in random order: `[frames, dim]`."""
    generator = np.random.default_rng(seed)
    sample = [cut for cut in cuts if generator.random() < min(1.0, 1500 / len(cuts))] or list(cuts)[:100]
    picked: list[np.ndarray] = []
    share = min(1.0, 200_000 / max(1.0, 50 * sum(cut.duration for cut in sample)))
    for start in range(0, len(sample), 16):  # a few at a time: wide features of all frames would fill the memory
        for item in features([read_cut(cut) for cut in sample[start : start + 16]]):
            frames = _at_50_hz(*item, first_centre)
            picked.append(frames[generator.random(len(frames)) < share])
    chosen = np.concatenate(picked)
    return chosen[generator.permutation(len(chosen))]


def _halves(cuts: CutSet, features: Featurize, seed: int, channels: float) -> np.ndarray:
    """Both halves of at most about 4 000 cuts, each as if it were an utterance: `[cuts, 2, dim]`."""
    import torch

    generator = np.random.default_rng(seed)
    chosen = [cut for cut in cuts if generator.random() < min(1.0, 4000 / len(cuts))] or list(cuts)[:100]
    pairs = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for cut in chosen:
            wave = read_cut(cut)
            parts = [wave[: len(wave) // 2], wave[len(wave) // 2 :]]
            if channels:
                parts = coloured(parts, 1.0, channels)
            pairs.append([item[0][0].numpy() for item in features(parts)])
    return np.array(pairs)


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as kept:  # each access reads the array anew, so each is read once
        ids, counts, flat = kept["ids"].tolist(), kept["counts"], kept["labels"]
    return {id: flat[start:end] for id, start, end in zip(ids, *_spans(counts), strict=True)}


def _write(file: Path, labels: Mapping[str, np.ndarray]) -> None:
    ids = sorted(labels)
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, ids=np.array(ids), counts=np.array([len(labels[id]) for id in ids]),
                 labels=np.concatenate([labels[id] for id in ids]))  # fmt: skip


@dataclass
class _Book:
    """A code book: fitted to a sample, then naming the clusters of frames."""

    clusters: int
    splits: int
    whiten: int | None
    turn: Whitening | None = None
    centres: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def read(cls, codebook: Mapping[str, Any]) -> _Book:
        clusters, splits, whiten = codebook.get("clusters"), codebook.get("splits", 1), codebook.get("whiten")
        if codebook.get("discriminate") is not None:
            raise UsageError("a code book of clusters does not discriminate", "add regress: true, or leave it out")
        for key, value in (("clusters", clusters), ("splits", splits), ("whiten", 1 if whiten is None else whiten)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"a code book's {key} is {value!r}", "give a whole number of at least 1")
        return cls(int(clusters or 1), splits, whiten)

    @property
    def identity(self) -> list[Any]:
        return [self.clusters, self.splits, self.whiten]

    def fit(self, frames: np.ndarray, seed: int) -> None:
        """Fit to `[frames, dim]`, in random order."""
        from sklearn.cluster import MiniBatchKMeans

        if len(frames) < self.clusters:
            raise UsageError(f"{len(frames)} frames of 20 ms cannot be put into {self.clusters} clusters",
                             "take fewer clusters in task.codebooks, or more speech")  # fmt: skip
        if self.whiten:
            self.turn = Whitening.fit(frames, self.whiten, np.random.default_rng(seed))
            frames = self.turn(frames)
        self.centres = [MiniBatchKMeans(self.clusters, batch_size=10_000, n_init=3, random_state=seed,
                                        max_no_improvement=50).fit(part).cluster_centers_
                        for part in _parts(frames, self.splits)]  # fmt: skip

    def labels(self, frames: np.ndarray) -> np.ndarray:
        """`[frames, dim]` -> `[frames, splits]` uint16."""
        parts = _parts(self.turn(frames) if self.turn else frames, self.splits)
        columns = [_nearest(part, centres) for centres, part in zip(self.centres, parts, strict=True)]
        return np.stack(columns, axis=1).astype(np.uint16)


@dataclass
class _Vectors:
    """Targets that are vectors: the leading components of the features, whitened, or discriminating utterances."""

    components: int
    whole: bool
    channels: float | None = None  # of the halves that it is fitted to, where it discriminates
    turn: Whitening | Discriminant | None = None

    @classmethod
    def read(cls, codebook: Mapping[str, Any]) -> _Vectors:
        whole, components = "context" in codebook and codebook["context"] is None, regressed(codebook)
        if codebook.get("clusters") is not None or codebook.get("splits") is not None:
            raise UsageError("a code book that regresses has no clusters or splits", "leave them out, or regress")
        if codebook.get("discriminate") is not None and not whole:
            raise UsageError("a code book that discriminates is one of whole utterances", "set its context to null")
        channels = codebook.get("channels")
        if channels is not None and (
            isinstance(channels, bool) or not isinstance(channels, (int, float)) or channels < 0
        ):
            raise UsageError(f"a code book's channels is {channels!r}", "give a strength of at least 0")
        if codebook.get("discriminate") is None:
            if channels is not None:
                raise UsageError("a code book has channels, but does not discriminate", "leave channels out")
            return cls(components, whole)
        return cls(components, whole, float(channels or 0.0))

    @property
    def identity(self) -> list[Any]:
        return [
            "regress",
            self.components,
            self.whole,
            *([] if self.channels is None else ["discriminate", self.channels]),
        ]

    def fit(self, frames: np.ndarray, seed: int) -> None:
        """Fit to `[frames, dim]`, in random order."""
        self.turn = Whitening.fit(frames, self.components, np.random.default_rng(seed))

    def labels(self, frames: np.ndarray) -> np.ndarray:
        """`[frames, dim]` -> `[frames, components]` float16, or `[1, components]` if all frames are equal."""
        assert self.turn is not None
        return self.turn(frames[:1] if self.whole else frames).clip(-10, 10).astype(np.float16)


def regressed(codebook: Mapping[str, Any]) -> int:
    """How many components a code book with `regress` has.

    Raises:
        UsageError: neither `whiten` nor `discriminate` says, or both do.
    """
    found = [codebook[key] for key in ("whiten", "discriminate") if codebook.get(key) is not None]
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int) or found[0] < 1:
        raise UsageError(
            f"a code book that regresses has whiten={codebook.get('whiten')!r}, "
            f"discriminate={codebook.get('discriminate')!r}",
            "say by one of them how many components to keep",
        )
    return found[0]


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
