"""A training as what it consists of: one task on one corpus, several in turn, or several at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One task of a training.

    Attributes:
        name: the task's.
        settings: a configuration of that task alone.
        steps: optimiser steps of its own schedule that are taken.
        share: of the micro-batches of these steps; below 1 in joint training.
        seconds: of an utterance, where its corpus is not there to tell.
    """

    name: str
    settings: dict[str, Any]
    steps: int
    share: float
    seconds: float


def parts_of(settings: Mapping[str, Any]) -> list[Part]:
    """The parts of a composed configuration of `experiment/paper`.

    Raises:
        UsageError: an impossible section `task` or `strategy`.
    """
    from speechft.data.joint import read_parts
    from speechft.strategies.build import build_strategy
    from speechft.train.sequence import stage_of

    kind, seconds = settings["task"].get("kind"), settings["paper"]["seconds"]
    strategy = build_strategy(settings["strategy"])

    def part(name: str, own: Mapping[str, Any], share: float = 1.0) -> Part:
        mean = seconds[name] if isinstance(seconds, Mapping) else seconds
        return Part(name, dict(own), strategy.last_step(int(own["trainer"]["steps"])), share, float(mean))

    if kind == "sequential":
        found = read_parts(settings["task"]["tasks"], ("trainer",))
        return [part(name, stage_of(settings, one)) for name, one in found.items()]
    if kind == "joint":
        found = read_parts(settings["task"]["tasks"])
        whole = sum(one.share for one in found.values())
        return [
            part(name, {**settings, "task": one.task, "data": {**settings["data"], **one.data}}, one.share / whole)
            for name, one in found.items()
        ]
    return [part(str(settings["task"]["name"]), settings)]
