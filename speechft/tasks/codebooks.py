"""Code books: what turns frame features into targets, clusters or vectors; fitted to a corpus first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechft.errors import UsageError
from speechft.tasks.projections import Discriminant, Whitening

OF_BOOKS = (
    "clusters",
    "splits",
    "whiten",
    "discriminate",
    "classes",
    "channels",
    "cap",
    "fitted_to",
    "regress",
    "heard",
)
"""Settings of a code book that are not its features'."""


@dataclass
class Book:
    """A code book: fitted to a sample, then naming the clusters of frames."""

    clusters: int
    splits: int
    whiten: int | None
    turn: Whitening | None = None
    centres: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def read(cls, codebook: Mapping[str, Any]) -> Book:
        clusters, splits, whiten = codebook.get("clusters"), codebook.get("splits", 1), codebook.get("whiten")
        for key in ("discriminate", "classes", "channels", "cap", "fitted_to", "heard"):
            if codebook.get(key) is not None:
                raise UsageError(f"a code book of clusters has no {key}", f"add regress: true, or leave {key} out")
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
class Vectors:
    """Targets that are vectors: the leading components of the features, whitened, or discriminating classes.

    Attributes:
        components: how many.
        whole: one vector for the utterance.
        channels: strength of the frequency responses before what it is fitted to, where it discriminates.
        speakers: the classes are the speakers instead of the utterances.
        cap: see `Discriminant.fit`.
        fitted_to: how the ids of the cuts begin that it is fitted to, where it discriminates.
        heard: the vectors are those of the augmented input, computed anew whenever it is heard.
    """

    components: int
    whole: bool
    channels: float | None = None
    speakers: bool = False
    cap: float | None = None
    fitted_to: str = ""
    heard: bool = False
    turn: Whitening | Discriminant | None = None

    @classmethod
    def read(cls, codebook: Mapping[str, Any]) -> Vectors:
        whole, components = "context" in codebook and codebook["context"] is None, regressed(codebook)
        if codebook.get("clusters") is not None or codebook.get("splits") is not None:
            raise UsageError("a code book that regresses has no clusters or splits", "leave them out, or regress")
        heard = codebook.get("heard", False)
        if not isinstance(heard, bool):
            raise UsageError(f"a code book's heard is {heard!r}", "say true or false")
        if codebook.get("discriminate") is None:
            for key in ("channels", "classes", "cap", "fitted_to"):
                if codebook.get(key) is not None:
                    raise UsageError(f"a code book has {key}, but does not discriminate", f"leave {key} out")
            return cls(components, whole, heard=heard)
        if not whole:
            raise UsageError("a code book that discriminates is one of whole utterances", "set its context to null")
        channels, classes = codebook.get("channels", 0.0), codebook.get("classes", "utterances")
        if isinstance(channels, bool) or not isinstance(channels, (int, float)) or channels < 0:
            raise UsageError(f"a code book's channels is {channels!r}", "give a strength of at least 0")
        if classes not in ("utterances", "speakers"):
            raise UsageError(f"a code book's classes is {classes!r}", "known: utterances, speakers")
        cap = codebook.get("cap")
        if cap is not None and (isinstance(cap, bool) or not isinstance(cap, (int, float)) or cap <= 0):
            raise UsageError(f"a code book's cap is {cap!r}", "give a ratio of variances above 0")
        prefix = str(codebook.get("fitted_to") or "")
        return cls(components, whole, float(channels), classes == "speakers", cap and float(cap), prefix, heard)

    @property
    def identity(self) -> list[Any]:
        return [
            "regress",
            self.components,
            self.whole,
            *([] if self.channels is None else ["discriminate", self.channels]),
            *(["speakers"] if self.speakers else []),
            *([] if self.cap is None else ["cap", self.cap]),
            *(["fitted to", self.fitted_to] if self.fitted_to else []),
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
