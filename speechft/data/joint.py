"""Several tasks' corpora side by side: each cut says whose it is, and batches are drawn by shares.

The section `tasks` of `task=joint` (`configs/task/joint.yaml`) is read here. Each of its entries is a choice of
`configs/task/` with what is changed in it, and with what only joint training needs: `weight`, `share`, and data of its
own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.config.compose import compose, flatten
from speechft.config.locate import read_group
from speechft.data.loader import Batches
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet

TASK = "task"
"""The custom field of a supervision that says which task its cut belongs to."""
ROUND = 100
"""Batches within which the shares are kept exactly; the epoch of a joint stream."""


@dataclass(frozen=True)
class Part:
    """One task among several.

    Attributes:
        name: its key in `tasks`.
        task: its own section, as `build_task` takes it.
        weight: of its loss.
        share: of the batches; what counts is the ratio to the others' shares.
        data: its own data section, or parts of one; what it lacks is the run's. In joint training `train` and `dev`,
            `batch_size`, `batch_seconds` and `buckets` are its own, the rest (`workers` ...) is the run's. With `use`,
            a choice of `configs/data/` with the other keys changed in it.
        trainer: what it changes of the run's trainer, where it is trained alone.
    """

    name: str
    task: dict[str, Any]
    weight: float = 1.0
    share: float = 1.0
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


def read_parts(tasks: Any, own_keys: Sequence[str] = ("weight", "share")) -> dict[str, Part]:
    """The section `tasks`: `{pr: {weight: 1, share: 2, lexicon: ...}, sid: {data: {use: voxceleb1, root: ...}}}`.

    Args:
        tasks: the section.
        own_keys: which of `weight`, `share` and `trainer` an entry may have.

    Raises:
        UsageError: none, an unknown task or key, an impossible weight or share.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        raise UsageError("task.tasks names no task", "give for example task.tasks='{pr: {}, sid: {share: 2}}'")
    parts = {}
    for name, options in tasks.items():
        own = dict(options or {})
        data, others = own.pop("data", None), {key: own.pop(key) for key in own_keys if key in own}
        for key, value in ((key, others[key]) for key in ("weight", "share") if key in others):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise UsageError(f"task.tasks.{name}.{key} is {value!r}", "give a positive number")
        if data is not None and not isinstance(data, Mapping):
            raise UsageError(f"task.tasks.{name}.data is {data!r}", "give {use: NAME, ...}, or train and dev")
        base = {"name": str(name), **own} if "kind" in own else read_group("task", str(own.pop("task", name)))
        unknown = sorted(own.keys() - base.keys())
        if unknown:
            raise UsageError(
                f"task.tasks.{name} has unknown keys: {', '.join(unknown)}",
                f"known: {', '.join(sorted((base.keys() - {'kind'}) | {'task', 'data', *own_keys}))}",
            )
        parts[str(name)] = Part(str(name), {**base, **own}, data=_data(str(name), data or {}), **others)
    return parts


def _data(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(data)
    choice = own.pop("use", None)
    if choice is None:
        return own
    changes = [f"++data.{key}={_written(value)}" for key, value in flatten(own).items()]
    try:
        return dict(compose("train", [f"data={choice}", *changes])["data"])
    except UsageError as error:
        raise UsageError(f"task.tasks.{name}.data: {error.what}", error.mend) from error


def _written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, whose mappings are JSON's but for the quotes around their keys."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)


def data_section(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The section `data` of a run, with every part's own corpora; every entry says whose it is.

    A part without corpora of its own shares the run's.

    Args:
        settings: a composed configuration, of any task.
    """
    data = dict(settings["data"])
    if settings["task"].get("kind") != "joint":
        return data
    parts = read_parts(settings["task"].get("tasks"))
    sources: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    for part in parts.values():
        own = part.data if "train" in part.data else data
        for split, collected in sources.items():
            collected += [{**source, TASK: part.name} for source in own.get(split) or []]
    return {**data, **sources, "dev": sources["dev"] or None}


def task_of(cut: Any) -> str:
    """Which task a cut belongs to.

    Raises:
        SpeechFTError: it does not say.
    """
    name = (cut.supervisions[0].custom or {}).get(TASK)
    if not name:
        raise SpeechFTError(f"utterance {cut.id} belongs to none of the tasks", "joint training needs data of its own")
    return str(name)


def cuts_of(cuts: CutSet | None, name: str) -> CutSet | None:
    """One task's cuts; None where there are none."""
    from lhotse import CutSet

    found = [cut for cut in cuts or [] if task_of(cut) == name]
    return CutSet.from_cuts(found) if found else None


def stream(task: Mapping[str, Any]) -> Callable[..., Batches]:
    """What makes a run's batches: `Batches`, or for a joint task `JointBatches`; the arguments are alike."""
    if task.get("kind") != "joint":
        return Batches
    parts = read_parts(task.get("tasks"))

    def joint(cuts: CutSet, *arguments: Any, **options: Any) -> Batches:
        return JointBatches(cuts, parts, *arguments, **options)

    return joint


class JointBatches(Batches):
    """Batches of one task each, drawn in a random order in which every task has its share.

    Every `ROUND` batches hold as many of each task as its share says, rounded, and at least one. A task's batches are
    those that it would get alone, one after the other. So the stream follows from seed and place, as any.

    Args:
        cuts: the tasks' cuts together (`task_of`).
        parts: the tasks.
        seconds, size, buckets: where a part does not say otherwise; the rest as in `Batches`.

    Raises:
        SpeechFTError: a task without cuts.
    """

    def __init__(self, cuts: CutSet, parts: Mapping[str, Part], seconds: float | None, size: int | None, buckets: int,
                 seed: int, *arguments: Any, **options: Any) -> None:  # fmt: skip
        super().__init__(cuts, seconds, size, buckets, seed, *arguments, **options)
        self._order = seed
        self._counts = dict(zip(parts, _counts([part.share for part in parts.values()]), strict=True))
        self._parts: dict[str, Batches] = {}
        for name, part in parts.items():
            own = cuts_of(cuts, name)
            if own is None:
                raise SpeechFTError(f"there is no training data for {name}", f"give task.tasks.{name}.data, or data")
            own_buckets = int(part.data.get("buckets", buckets))
            sizes = (part.data.get("batch_seconds"), part.data.get("batch_size"))
            by_seconds, by_count = sizes if any(sizes) else (seconds, size)
            self._parts[name] = Batches(own, by_seconds, by_count, own_buckets, seed, *arguments, **options)
        self._places = {name: [0] for name in parts}  # where each epoch of a part begins in its stream

    def plan(self, epoch: int) -> list[CutSet]:
        """The batches of a round, in order."""
        names = [name for name, count in self._counts.items() for _ in range(count)]
        drawn = {name: iter(self._some(name, epoch * count, count)) for name, count in self._counts.items()}
        order = np.random.default_rng([self._order & 0xFFFFFFFF, epoch]).permutation(len(names))
        return [next(drawn[names[place]]) for place in order]

    def _some(self, name: str, first: int, count: int) -> list[CutSet]:
        """Batches `first` to `first + count` of a part's endless stream."""
        part, places = self._parts[name], self._places[name]
        epoch = max(number for number, place in enumerate(places) if place <= first)
        found: list[CutSet] = []
        while len(found) < count:
            own = part.plan(epoch)
            if not own:
                raise SpeechFTError(f"the corpus of {name} gives no batch", "lower its data.batch_size")
            start = places[epoch]
            if epoch + 1 == len(places):
                places.append(start + len(own))
            found += own[max(0, first - start) :]
            epoch += 1
        return found[:count]


def _counts(shares: Sequence[float]) -> list[int]:
    """How many batches of a round each gets."""
    return [max(1, round(ROUND * share / sum(shares))) for share in shares]
