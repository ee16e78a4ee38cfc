"""What an evaluation will take, said before it starts: audio to encode, bytes to write, time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.console import duration
from speechft.data.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from speechft.console import Progress
    from speechft.superb.items import Split
    from speechft.superb.settings import Settings
    from speechft.superb.tasks.base import Task
    from speechft.upstreams.base import Upstream

WORTH_SECONDS = 60.0
"""With less audio to encode and less time for the heads, the speed is not measured and nothing need be said."""


@dataclass
class Part:
    """One task of one upstream.

    Attributes:
        upstream, task: their names.
        finished: nothing is left to do.
        encode_seconds: audio still to be encoded into the store.
        heard_seconds: audio that the upstream hears batch by batch because its features are not stored.
        write_bytes, stored_bytes: of features, still to be written and already there.
        shared_with: earlier tasks of this upstream that make some of its features.
        speed: seconds of audio that the upstream hears in a second, measured on this machine; None if it was not.
        feature_seconds: about how long the upstream will run; 0 if it need not.
        head_seconds: about how long the head will train, from a few timed steps; None if none was timed.
    """

    upstream: str
    task: str
    finished: bool = False
    encode_seconds: float = 0.0
    heard_seconds: float = 0.0
    write_bytes: int = 0
    stored_bytes: int = 0
    shared_with: list[str] = field(default_factory=list)
    speed: float | None = None
    feature_seconds: float | None = None
    head_seconds: float | None = None


@dataclass
class _Reading:
    """What a task (or one of its folds) reads, the same for every upstream."""

    task: Task
    splits: dict[str, Split]
    identities: dict[str, str]


def estimate(
    settings: Settings, sources: Sequence[tuple[str, Any]], tasks: Sequence[Task], measure: bool = True,
    progress: Progress | None = None,
) -> list[Part]:  # fmt: skip
    """A part per upstream and task, in the order of the evaluation. Nothing is written to store or results.

    Args:
        settings, sources, tasks: of `evaluate.prepare`.
        measure: whether to time this machine, a few seconds for each upstream and for each task.
        progress: where to tell of what takes long (ASV reads all its files).

    Raises:
        SpeechFTError: a file that cannot be read; pooled features that do not fit.
    """
    from speechft.superb import compat
    from speechft.superb import state as saved
    from speechft.superb.evaluate import finished_before
    from speechft.superb.quiet import quiet
    from speechft.superb.sources import loaded
    from speechft.superb.timing import speed_of

    parts: list[Part] = []
    readings: dict[str, list[_Reading]] = {}
    heads: dict[tuple[str, int, int], float | None] = {}  # a head's time depends on the size of its input alone
    before = saved.random_state()
    if progress is not None:
        for task in tasks:
            task.bar = progress.bar
    with tempfile.TemporaryDirectory() as folder, quiet(Path(folder) / "log"):
        compat.install()
        for name, upstream in loaded(sources, settings.upstream):
            own = []
            made: dict[str, str] = {}
            lengths: list[int] = []
            for task in tasks:
                part = Part(name, task.name)
                own.append(part)
                part.finished = finished_before(settings, name, task, upstream) is not None
                if part.finished:
                    continue
                size = (task.name, upstream.num_layers, upstream.dim)
                if size not in heads:
                    work = Path(folder) / f"{task.name}-{len(heads)}"
                    readings[task.name], heads[size] = _read(task, upstream, settings, work, measure)
                part.head_seconds = heads[size]
                for reading in readings[task.name]:
                    lengths += _add(part, reading, upstream, settings, made)
            if sum(part.encode_seconds + part.heard_seconds for part in own) == 0:
                for part in own:
                    part.feature_seconds = 0.0
            elif measure and sum(part.encode_seconds + part.heard_seconds for part in own) >= WORTH_SECONDS:
                speed = speed_of(upstream, lengths, settings)
                for part in own:  # batches of a head are heard by one device
                    part.speed = speed
                    part.feature_seconds = (part.encode_seconds / len(settings.devices) + part.heard_seconds) / speed
            parts += own
    saved.set_random_state(before)
    return parts


def _read(
    task: Task, upstream: Upstream, settings: Settings, work: Path, measure: bool
) -> tuple[list[_Reading], float | None]:
    """Build the task's expert (each fold's) and list what it reads; and about how long the head trains, in seconds."""
    import torch

    from speechft.superb.assemble import build_modules
    from speechft.superb.draws import Crops
    from speechft.superb.extract import data_identity
    from speechft.superb.timing import head_seconds

    recipe = settings.superb[task.name]
    names = task.variants(recipe)
    readings, seconds = [], None
    for number, one in enumerate([task.variant(name) for name in names] if names else [task]):
        with one.environment(work):
            config = one.config(recipe, settings.data, work)
            device = torch.device(settings.device)
            featurizer, expert = build_modules(one, config, upstream, work, settings.seed, device)
            splits = {name: one.split(expert, name, Crops.read(recipe)) for name in one.splits}
            identities = {name: data_identity(one, split, recipe, settings.data) for name, split in splits.items()}
            readings.append(_Reading(one, splits, identities))
            if number == 0 and measure:
                seconds = head_seconds(one, config, featurizer, expert, splits, upstream, settings)
    return readings, None if seconds is None else seconds * max(1, len(names))


def _add(part: Part, reading: _Reading, upstream: Upstream, settings: Settings, made: dict[str, str]) -> list[int]:
    """Add to a part what it takes; returns the lengths of what the upstream will hear, in samples.

    Args:
        made: digest of a feature set -> the task that makes it first.
    """
    from speechft.superb.assemble import shared_plan, what_fits
    from speechft.superb.extract import plan
    from speechft.superb.store import FeatureStore

    task, recipe, dtype = reading.task, settings.superb[reading.task.name], settings.frames_dtype
    sources = {
        name: (split, *plan(task, split, upstream, reading.identities[name], dtype, settings.numerics))
        for name, split in reading.splits.items()
    }
    store, kept = FeatureStore(settings.store), set()
    if settings.engine == "fast":
        if task.one_store:
            sources = {"all": shared_plan(task, sources, recipe, settings.data, upstream, dtype, settings.numerics)}
        kept = what_fits(task, sources, store, settings.budget_gb, lambda text: None)
    lengths: list[int] = []
    for name, (split, key, layout) in sources.items():
        if name not in kept:
            part.heard_seconds += _heard(task, name, split, upstream, settings)
            lengths += [item.samples for item in split.items]
        elif key.digest in made:
            if made[key.digest] not in (part.task, *part.shared_with):
                part.shared_with.append(made[key.digest])
        else:
            made[key.digest] = part.task
            missing = [split.items[number].samples for number in store.missing_items(key, layout)]
            part.encode_seconds += sum(missing) / SAMPLE_RATE
            part.write_bytes += store.missing_bytes(key, layout)
            part.stored_bytes += layout.total_bytes(key) - store.missing_bytes(key, layout)
            lengths += missing
    return lengths


def _heard(task: Task, name: str, split: Split, upstream: Upstream, settings: Settings) -> float:
    """Seconds of audio that go through the upstream if the features of a split are not stored.

    s3prl's own loop runs once for every rate; ours serves all from one pass. A task without training (QbE) hears its
    dev set once for every layer and its test set once.
    """
    recipe, whole = settings.superb[task.name], sum(item.samples for item in split.items) / SAMPLE_RATE
    if "steps" not in recipe:
        return whole * (upstream.num_layers if name == "dev" else 1)
    runs = len(recipe["lr"]) if settings.engine == "s3prl" else 1
    steps = int(recipe["steps"])
    if name == "train":
        drawn = steps * int(recipe["accumulate"]) * int(recipe["batch_size"])
        return runs * drawn * whole / max(1, len(split.items))
    evaluations = steps // min(int(recipe["eval_step"]), steps)
    return whole * runs * ((evaluations if name == task.selected_on else 0) + (1 if name == "test" else 0))


def worth_saying(parts: Sequence[Part]) -> bool:
    """Whether anything takes long enough for a person to care."""
    audio = sum(part.encode_seconds + part.heard_seconds for part in parts)
    return audio >= WORTH_SECONDS or sum(part.head_seconds or 0 for part in parts) >= WORTH_SECONDS


def as_json(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """For machines: the attributes of `Part`."""
    return [asdict(part) for part in parts]


def lines(parts: Sequence[Part], settings: Settings) -> list[str]:
    """For people: a line per part, and one for all."""
    from speechft.superb.store import room

    told = [_line(part, settings) for part in parts]
    write = sum(part.write_bytes for part in parts)
    hours = sum(part.encode_seconds + part.heard_seconds for part in parts) / 3600
    _, free = room(settings.store, settings.budget_gb)
    known = sum((part.feature_seconds or 0) + (part.head_seconds or 0) for part in parts)
    left = [part for part in parts if not part.finished]
    untimed = [part for part in left if part.head_seconds is None]
    heads = [part for part in untimed if "steps" in settings.superb[part.task]]  # QbE trains none
    unmeasured = len(heads) < len(untimed) or any(part.feature_seconds is None for part in left)
    total = f"in all: {hours:.1f} h of audio through upstreams, {_gb(write)} to write, {_gb(free)} free in the store"
    if write > free:
        total += " (TOO LITTLE for all of it: free some, or move it with store=DIR)"
    if known:
        total += f", about {duration(known)}" + (" and what could not be measured" if unmeasured else "")
        total += " and the training of heads that were not timed, such as short ones" if heads else ""
    where = f"{settings.device}" if len(settings.devices) == 1 else ", ".join(settings.devices)
    measured = f"(speeds from a few seconds of noise on {where}; the machine's other work and slow disks add to it)"
    return [*told, f"{total} {measured}" if known else total]


def _line(part: Part, settings: Settings) -> str:
    told = f"{part.upstream} {part.task}: "
    if part.finished:
        return told + "finished before"
    pieces = []
    if part.encode_seconds:
        pieces.append(
            f"{part.encode_seconds / 3600:.2f} h of audio to encode, {_gb(part.write_bytes)} to write"
            f" ({_gb(part.stored_bytes)} are stored)"
        )
    elif part.stored_bytes:
        pieces.append(f"all features are stored ({_gb(part.stored_bytes)})")
    if part.shared_with:
        pieces.append(f"features shared with {', '.join(part.shared_with)}")
    if part.heard_seconds:
        why = "s3prl's loop" if settings.engine == "s3prl" else "features that do not fit are not stored"
        pieces.append(f"{part.heard_seconds / 3600:.2f} h of audio heard in batches of the head ({why})")
    if part.feature_seconds:
        pieces.append(
            f"about {duration(part.feature_seconds)} for that, at {part.speed:.3g} s of audio a second and device"
        )
    if part.head_seconds is not None:
        pieces.append(f"head about {duration(part.head_seconds)}")
    elif "steps" in settings.superb[part.task]:
        pieces.append("the head's time shows once it trains")
    return told + ", ".join(pieces)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
