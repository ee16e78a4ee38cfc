"""From measured steps to the whole recipe on the official corpora: what `scripts/bench superb` multiplies with what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechft.data.audio import SAMPLE_RATE
from speechft.superb.draws import Crops

FRAMES_A_SECOND = 50


@dataclass(frozen=True)
class Corpus:
    """An official corpus.

    Attributes:
        utterances: of each split.
        seconds: mean length of each split's utterances.
        extra_items: waveforms that the fast engine encodes beside the utterances (a second long each).
        source: of the numbers.
        shortest: training utterance, in seconds, where their lengths matter because they are cropped.
    """

    utterances: Mapping[str, int]
    seconds: Mapping[str, float]
    extra_items: int
    source: str
    shortest: float | None = None


OFFICIAL: dict[str, Corpus] = {
    "ks": Corpus(
        {"train": 51_094, "dev": 6_798, "test": 3_081},
        {"train": 1.0, "dev": 1.0, "test": 1.0},
        2 * 6 * 100,  # random seconds of six noise files, for training and dev set
        "dataset card of s3prl/superb on the Hugging Face hub (ks); clips are a second long (Warden 2018)",
    ),
    "sid": Corpus(
        {"train": 138_361, "dev": 6_904, "test": 8_251},
        {"train": 8.2, "dev": 8.2, "test": 8.2},
        0,
        "VoxCeleb1's iden_split.txt; lengths (mean, shortest) of table 1 of Nagrani et al. 2017 (arXiv 1706.08612)",
        4.0,
    ),
    "pr": Corpus(
        {"train": 28_539, "dev": 2_703, "test": 2_620},
        {"train": 100.6 * 3600 / 28_539, "dev": 5.4 * 3600 / 2_703, "test": 5.4 * 3600 / 2_620},
        0,
        "dataset card of s3prl/superb on the Hugging Face hub (asr); hours of Panayotov et al. 2015, table 1",
    ),
}


@dataclass(frozen=True)
class Measured:
    """One task's figures, all in seconds (medians over repetitions).

    Attributes:
        mean_seconds: length of the measured corpus's utterances.
        encode: of the fast engine, for a second of audio (reading and writing included).
        ours: a micro-batch of the fast engine on stored features, all learning rates together.
        streamed: the same, the upstream run at every batch (frames that do not fit); None where it does not occur.
        theirs: a micro-batch of s3prl's loop, one learning rate.
        our_dev: evaluating one dev utterance with the fast engine, all rates together.
        their_dev: evaluating a second of dev audio with s3prl's loop.
        row_bytes: of one stored row.
        rates: learning rates searched.
        frames: whether a row is a frame, else an utterance.
    """

    mean_seconds: float
    encode: float
    ours: float
    streamed: float | None
    theirs: float
    our_dev: float
    their_dev: float
    row_bytes: int
    rates: int
    frames: bool


def lengths(mean: float, shortest: float, count: int) -> list[float]:
    """Seconds of utterances, none shorter than `shortest`, and what is beyond it exponential.

    They are the quantiles of that distribution, ascending, stretched a little so that their mean is `mean`.
    """
    beyond = [-math.log1p(-(number + 0.5) / count) for number in range(count)]
    stretch = (mean - shortest) * count / sum(beyond)
    return [shortest + stretch * one for one in beyond]


def drawn(name: str, recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Waveforms, and seconds of them, that the fast engine encodes for a training utterance of the official corpus.

    Other than one and the utterance where it is cropped (SID's beyond `crop_seconds`): see `superb.draws.Crops.of`.
    """
    corpus = OFFICIAL[name]
    mean, count = corpus.seconds["train"], corpus.utterances["train"]
    if corpus.shortest is None:
        return 1.0, mean
    limit = round(float(recipe["crop_seconds"]) * SAMPLE_RATE)
    samples = [round(one * SAMPLE_RATE) for one in lengths(mean, corpus.shortest, count)]
    crops = sum(Crops.read(recipe).of([(one, limit) for one in samples if one > limit], count))
    whole = [one for one in samples if one <= limit]
    return (len(whole) + crops) / count, (sum(whole) + crops * limit) / SAMPLE_RATE / count


def extrapolate(name: str, measured: Measured, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Wall time of the full recipe.

    ours = time to encode every utterance once + steps x time of a step + evaluations;
    s3prl's = (steps x time of a step + evaluations) x learning rates.
    Where utterances were measured at another length than the official mean, what depends on it is taken to be
    proportional to it.

    Args:
        name: of the task.
        measured: figures of this machine.
        recipe: the official one (configs/superb).

    Returns:
        `s3prl`, `speechft` and, where frames may not fit the disk, `streamed` (training frames computed at every
        batch): hours of each part and in all; of ours, `ratio` (s3prl's hours over ours), `ratio_without_evaluations`
        (dev sets are evaluated often, and s3prl encodes them each time) and `disk_gb`.
    """
    ours = _ours(name, measured, recipe, streamed=False)
    theirs = _theirs(name, measured, recipe)
    result = {"s3prl": _hours(theirs), "speechft": _against(ours, theirs)}
    result["speechft"]["disk_gb"] = _disk(name, measured, recipe, ("train", "dev", "test"))
    if measured.streamed is not None:
        result["streamed"] = _against(_ours(name, measured, recipe, streamed=True), theirs)
        result["streamed"]["disk_gb"] = _disk(name, measured, recipe, ("dev", "test"))
    return result


def _counts(recipe: Mapping[str, Any]) -> tuple[int, int]:
    """Micro-batches and dev evaluations of the whole recipe."""
    steps = int(recipe["steps"])
    return steps * int(recipe["accumulate"]), steps // int(recipe["eval_step"])


def _encoded(name: str, recipe: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of audio that the fast engine encodes, by split."""
    corpus = OFFICIAL[name]
    seconds = {split: count * corpus.seconds[split] for split, count in corpus.utterances.items()}
    seconds["train"] = corpus.utterances["train"] * drawn(name, recipe)[1] + corpus.extra_items
    return seconds


def _ours(name: str, measured: Measured, recipe: Mapping[str, Any], streamed: bool) -> dict[str, float]:
    corpus, encoded = OFFICIAL[name], _encoded(name, recipe)
    batches, evaluations = _counts(recipe)
    # frames grow with the utterance, a pooled one is one row however long it is
    grow = {split: seconds / measured.mean_seconds if measured.frames else 1.0
            for split, seconds in corpus.seconds.items()}  # fmt: skip
    looked = {split: corpus.utterances[split] * measured.our_dev * grow[split] for split in ("dev", "test")}
    step = measured.streamed if streamed and measured.streamed is not None else measured.ours
    return {
        "encoding": measured.encode * (sum(encoded.values()) - (encoded["train"] if streamed else 0.0)),
        "training": batches * step * grow["train"],
        # the test set is for the best rate alone
        "evaluating": evaluations * looked["dev"] + looked["test"] / measured.rates,
    }


def _theirs(name: str, measured: Measured, recipe: Mapping[str, Any]) -> dict[str, float]:
    corpus = OFFICIAL[name]
    batches, evaluations = _counts(recipe)
    heard = {split: corpus.utterances[split] * corpus.seconds[split] for split in ("dev", "test")}
    step = measured.theirs * corpus.seconds["train"] / measured.mean_seconds
    return {
        "training": measured.rates * batches * step,
        "evaluating": (measured.rates * evaluations * heard["dev"] + heard["test"]) * measured.their_dev,
    }


def _hours(parts: Mapping[str, float]) -> dict[str, float]:
    return {**{f"{part}_hours": value / 3600 for part, value in parts.items()}, "hours": sum(parts.values()) / 3600}


def _against(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {
        **_hours(ours),
        "ratio": sum(theirs.values()) / sum(ours.values()),
        "ratio_without_evaluations": theirs["training"] / (ours["encoding"] + ours["training"]),
    }


def _disk(name: str, measured: Measured, recipe: Mapping[str, Any], splits: Sequence[str]) -> float:
    """GB (1e9 bytes) of stored features."""
    if measured.frames:
        encoded = _encoded(name, recipe)
        rows = FRAMES_A_SECOND * sum(encoded[split] for split in splits)
    else:
        items = OFFICIAL[name].utterances
        rows = sum(items[split] * (drawn(name, recipe)[0] if split == "train" else 1) for split in splits)
        rows += OFFICIAL[name].extra_items
    return rows * measured.row_bytes / 1e9
