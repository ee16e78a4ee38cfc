"""Cluster labels for masked prediction: k-means over frame features, computed once and kept in the cache.

HuBERT (2106.07447, section II-A) clusters MFCCs first and, in later iterations, a hidden layer of the model before;
section II-C allows several code books at once, and product quantisation: parts of a feature vector clustered apart. A
code book here is one entry of `task.codebooks`. With `regress: true` the target is not a cluster but the features
themselves, as when one network is distilled into another (DistilHuBERT, 2110.01900): more is said in every frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.console import progress
from speechft.data.augment import coloured
from speechft.data.loader import in_order, read_cut
from speechft.errors import UsageError
from speechft.files import cache_dir, sha256_json, whole_file
from speechft.tasks.codebooks import OF_BOOKS, Book, Vectors
from speechft.tasks.frame_features import Featurize, featurizer
from speechft.tasks.projections import Discriminant, Whitening
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet
    from torch import Tensor

_VERSION = 6  # of what labels mean: part of the key they are cached under


def make_targets(
    cuts: CutSet,
    codebooks: Sequence[Mapping[str, Any]],
    seed: int,
    first_centre: float = 0.0125,
    cache: Path | None = None,
    own: Upstream | None = None,
) -> list[dict[str, np.ndarray] | Heard]:
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
            out then. With `classes: speakers` it is fitted to whole utterances, as recorded, of the speakers that have
            several; with `fitted_to` to those cuts alone whose ids begin so (one corpus' speakers: between corpora
            channels differ more than voices). `cap`: see `Discriminant.fit`. With `heard: true` vectors are those of
            the waveform as the upstream hears it, augmented, so computed anew at every step.
        seed: of the k-means, of the whitening, and of the frames they are fitted on.
        first_centre: the middle of the upstream's first frame, in seconds.
        cache: where labels are kept, by a hash of everything they depend on.
        own: see `frame_features.featurizer`.

    Raises:
        UsageError: a code book with an unknown or impossible setting.

    Returns:
        For each code book: cut id -> `[frames, splits]` uint16, or `[frames or 1, components]` float16 where it
        regresses; frame t is centred at `first_centre` + 0.02 t seconds. Where it is `heard`, what computes it.
    """
    corpus = [_identity_of(cut) for cut in cuts]
    groups: dict[str, list[int]] = {}
    for number, codebook in enumerate(codebooks):
        groups.setdefault(sha256_json(_features_of(codebook)), []).append(number)
    found: list[Any] = [{} for _ in codebooks]
    for numbers in groups.values():
        options = _features_of(codebooks[numbers[0]])
        features, source = featurizer(options, own)
        described = {key: value for key, value in options.items() if key not in ("path", "upstream")}
        files: dict[int, Path] = {}
        books: dict[int, Book | Vectors] = {}
        for number in numbers:
            book = Vectors.read(codebooks[number]) if codebooks[number].get("regress") else Book.read(codebooks[number])
            identity = [source, corpus, described, *book.identity, seed, first_centre, _VERSION]
            name = f"{sha256_json(identity)[:24]}{'-turn' if isinstance(book, Vectors) and book.heard else ''}.npz"
            file = (cache or cache_dir() / "targets") / name
            if not file.is_file():
                files[number], books[number] = file, book
            elif isinstance(book, Vectors) and book.heard:
                found[number] = Heard(features, _read_turn(file), book.whole, first_centre)
            else:
                found[number] = _read(file)
        if not books:
            continue
        _fit(list(books.values()), cuts, features, seed, first_centre)
        for number, book in list(books.items()):
            if isinstance(book, Vectors) and book.heard:
                assert book.turn is not None
                _write_turn(files.pop(number), book.turn)
                found[number] = Heard(features, book.turn, book.whole, first_centre)
                del books[number]
        if not books:
            continue
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


@dataclass(frozen=True)
class Heard:
    """What computes a code book's vectors of waveforms as they are heard."""

    features: Featurize
    turn: Whitening | Discriminant
    whole: bool
    first_centre: float

    def __call__(self, waves: Sequence[Tensor], measured: dict[int, list[Any]] | None = None) -> list[np.ndarray]:
        """Waveforms `[samples]` -> for each `[frames or 1, components]` float32, as `make_targets` has them.

        Args:
            waves: what is heard.
            measured: features of these waveforms that code books share, filled here.
        """
        kept = {} if measured is None else measured
        if id(self.features) not in kept:
            kept[id(self.features)] = self.features([wave.detach().float().cpu() for wave in waves])
        found = []
        for features, rate, first in kept[id(self.features)]:
            frames = features[:1].numpy() if self.whole else _at_50_hz(features, rate, first, self.first_centre)
            found.append(self.turn(frames).clip(-10, 10).astype(np.float32))
        return found


def _fit(books: list[Book | Vectors], cuts: CutSet, features: Featurize, seed: int, first_centre: float) -> None:
    """Fit code books of the same features, each to what it needs."""
    sample: np.ndarray | None = None
    classes: dict[tuple[bool, float, str], tuple[np.ndarray, np.ndarray]] = {}
    for book in books:
        if isinstance(book, Vectors) and book.channels is not None:
            key = (book.speakers, book.channels, book.fitted_to)
            if key not in classes:
                own = [cut for cut in cuts if cut.id.startswith(book.fitted_to)]
                if not own:
                    raise UsageError(f"a code book is fitted to {book.fitted_to!r}", "no cut's id begins so")
                classes[key] = (_speakers if book.speakers else _halves)(own, features, seed, book.channels)
            book.turn = Discriminant.fit(*classes[key], book.components, book.cap)
        else:
            sample = _sample(cuts, features, seed, first_centre) if sample is None else sample
            book.fit(sample, seed)


def _features_of(codebook: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in codebook.items() if key not in OF_BOOKS}


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


def _halves(cuts: list[Any], features: Featurize, seed: int, channels: float) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of at most about 4 000 cuts, each as if it were an utterance: `[2 cuts, dim]`, and whose they are."""
    chosen = _some(cuts, seed)
    waves = (part for cut in chosen for part in _cut_in_two(read_cut(cut)))
    return _through_channels(waves, features, seed, channels), np.arange(len(chosen)).repeat(2)


def _speakers(cuts: list[Any], features: Featurize, seed: int, channels: float) -> tuple[np.ndarray, np.ndarray]:
    """At most about 4 000 cuts of speakers with several: `[cuts, dim]`, and whose they are. Other speeds, which are
    other voices that differ in nothing else, are left out."""
    own: dict[str, list[Any]] = {}
    for cut in cuts:
        speaker = cut.supervisions[0].speaker if cut.supervisions else None
        if speaker is not None and not cut.recording.transforms:
            own.setdefault(speaker, []).append(cut)
    several = [cut for group in own.values() if len(group) > 1 for cut in group]
    if not several:
        raise UsageError("a code book has the classes speakers, but no speaker has two utterances", "say utterances")
    chosen = _some(several, seed)
    speakers = [cut.supervisions[0].speaker for cut in chosen]
    places = {speaker: place for place, speaker in enumerate(dict.fromkeys(speakers))}
    found = _through_channels((read_cut(cut) for cut in chosen), features, seed, channels)
    return found, np.array([places[speaker] for speaker in speakers])


def _some(cuts: list[Any], seed: int) -> list[Any]:
    generator = np.random.default_rng(seed)
    return [cut for cut in cuts if generator.random() < min(1.0, 4000 / len(cuts))] or cuts[:100]


def _cut_in_two(wave: Tensor) -> list[Tensor]:
    return [wave[: len(wave) // 2], wave[len(wave) // 2 :]]


def _through_channels(waves: Iterable[Tensor], features: Featurize, seed: int, channels: float) -> np.ndarray:
    """Features of whole waveforms, each behind a frequency response of its own: `[waveforms, dim]`."""
    import torch

    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for wave in waves:
            item = features(coloured([wave], 1.0, channels) if channels else [wave])[0]
            found.append(item[0][0].numpy())
    return np.array(found)


def _read_turn(file: Path) -> Whitening | Discriminant:
    with np.load(file) as kept:
        return Discriminant(kept["mean"], kept["matrix"])


def _write_turn(file: Path, turn: Whitening | Discriminant) -> None:
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, mean=turn.mean, matrix=turn.matrix)


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as kept:  # each access reads the array anew, so each is read once
        ids, counts, flat = kept["ids"].tolist(), kept["counts"], kept["labels"]
    return {id: flat[start:end] for id, start, end in zip(ids, *_spans(counts), strict=True)}


def _write(file: Path, labels: Mapping[str, np.ndarray]) -> None:
    ids = sorted(labels)
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, ids=np.array(ids), counts=np.array([len(labels[id]) for id in ids]),
                 labels=np.concatenate([labels[id] for id in ids]))  # fmt: skip


def _spans(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(counts)
    return ends - counts, ends


def _at_50_hz(features: Tensor, rate: float, first: float, wanted: float) -> np.ndarray:
    """The feature frames nearest to `wanted` + 0.02 t seconds; theirs are at `first` + t / `rate`."""
    count = max(1, int((len(features) / rate + first - wanted) / 0.02) + 1)
    places = np.rint((wanted + 0.02 * np.arange(count) - first) * rate).clip(0, len(features) - 1).astype(int)
    return features.numpy()[places].astype(np.float32)
