"""What a plan takes: hours on this device, and disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechft.console import Progress, say
from speechft.errors import SpeechFTError
from speechft.files import sha256_json
from speechft.reproduce.check import Survey, corpus_key, settings_of
from speechft.reproduce.finished import tasks_left
from speechft.reproduce.parts import Part, parts_of
from speechft.reproduce.plan import Stage
from speechft.reproduce.request import Request
from speechft.reproduce.step import StepTime, time_step
from speechft.superb.estimate import WORTH_SECONDS

_FLOAT = 4  # bytes


@dataclass
class Cost:
    """Of one stage.

    Attributes:
        seconds: on this device, of what is known; None where nothing is.
        incomplete: `seconds` leaves something out that takes time.
        disk: bytes that it leaves under `--out`.
        store: bytes of features in the store.
        how: how the time was found, or why it was not.
    """

    seconds: float | None = None
    disk: float = 0.0
    store: float = 0.0
    how: list[str] = field(default_factory=list)
    incomplete: bool = False


class Costs:
    """Costs of stages; what is alike is measured once.

    Args:
        survey: what is there.
        measure: whether to time steps on this device.
    """

    def __init__(self, survey: Survey, measure: bool = True) -> None:
        self.survey, self.measure = survey, measure
        self._steps: dict[str, StepTime] = {}
        self._scored: dict[tuple[str, ...], dict[str, Any]] = {}

    def of(self, stage: Stage) -> Cost:
        """What an unfinished stage takes."""
        known = {"train": self._train, "merge": self._merge, "eval": self._evaluate}
        return known[stage.kind](stage) if stage.kind in known else Cost(0.0)

    def _train(self, stage: Stage) -> Cost:
        try:
            settings = settings_of(stage)
        except SpeechFTError:  # a corpus is not given; the problems say which
            return Cost(None, how=["its corpus is not given"], incomplete=True)
        cost = Cost(0.0)
        for part in parts_of(settings):
            self._add(cost, part, settings)
        return cost

    def _add(self, cost: Cost, part: Part, settings: dict[str, Any]) -> None:
        from speechft.strategies.build import build_strategy

        step = self._step(part)
        if step is None:
            cost.seconds, cost.incomplete = None, True
            return
        trainer, found = part.settings["trainer"], self.survey.corpora.get(corpus_key(part)) or {}
        strategy = build_strategy(part.settings["strategy"])
        seconds = step.of_run(
            part.steps, strategy.frozen_steps(int(trainer["steps"])), int(trainer["accumulate"]), part.share
        )
        heard = {name: 3600 * float(split["hours"]) for name, split in found.items()}
        evaluations = part.steps // int(trainer["eval_every"]) + 1
        seconds += evaluations * heard.get("dev", 0.0) * step.hear
        if "codebooks" in part.settings["task"]:  # clusters: everything is heard once before
            hours = settings["paper"]["hours"]
            seconds += (heard.get("train", 3600 * float(hours)) + heard.get("dev", 0.0)) * step.hear
        upstream, head, trained = step.parameters
        kept = int(trainer["keep"]) + int(bool(trainer["keep_best"]))
        # joint training has one run for all its parts
        cost.disk += part.share * _FLOAT * (kept * (upstream + head + 2 * trained) + upstream)
        if cost.seconds is not None:
            cost.seconds += seconds
        scaled = "" if step.timed >= 0.99 * step.audio else f", from {step.timed:.0f} s of it"
        head_phase = "" if step.head != step.head else f"{step.head:.3g} s with the upstream frozen, "
        cost.how.append(
            f"{part.name}: {part.steps} steps; a micro-batch of {step.audio:.0f} s of audio takes {head_phase}"
            f"{step.full:.3g} s trained, an update {step.update:.2g} s{scaled}"
        )

    def _step(self, part: Part) -> StepTime | None:
        if not self.measure:
            return None
        settings, seconds = part.settings, self._mean_seconds(part)
        relevant = {key: settings["trainer"][key] for key in ("precision", "gradient_checkpointing", "optimizer")}
        strategy = {key: value for key, value in settings["strategy"].items() if key != "name"}
        batch = [settings["data"][key] for key in ("batch_seconds", "batch_size")]
        task = {key: value for key, value in settings["task"].items() if key != "lexicon"}
        key = sha256_json([settings["upstream"], task, strategy, relevant, batch, round(seconds, 1)])
        if key not in self._steps:
            upstream = self.survey.upstream(str(settings["upstream"]["name"]))
            say(f"timing a step: {settings['upstream']['name']}, {settings['strategy']['name']}, {part.name}")
            self._steps[key] = time_step(settings, upstream, seconds)
        return self._steps[key]

    def _mean_seconds(self, part: Part) -> float:
        train = (self.survey.corpora.get(corpus_key(part)) or {}).get("train")
        if not train or not train["utterances"] or not train["hours"]:
            return part.seconds
        seconds = 3600 * float(train["hours"]) / int(train["utterances"])
        crop = part.settings["task"].get("crop_seconds")
        return max(0.1, min(seconds, float(crop)) if crop else seconds)

    def _merge(self, stage: Stage) -> Cost:
        upstream = self.survey.upstreams.get(stage.upstream)
        if upstream is None:
            return Cost(0.0)
        size = _FLOAT * sum(parameter.numel() for parameter in upstream.parameters())
        files = 2 if upstream.identity.family in ("wavlm", "decoar2") else 1  # s3prl.pt beside it
        return Cost(0.0, disk=float(len(stage.makes) * files * size))

    def _evaluate(self, stage: Stage) -> Cost:
        left = tasks_left(stage)
        lacking = [task for task in left if task not in self.survey.ready]
        if lacking:
            return Cost(None, how=[f"files of {', '.join(lacking)} are missing"], incomplete=True)
        key = (stage.upstream, *stage.words[3:])
        if key not in self._scored:
            self._scored[key] = self._estimate(stage)
        parts = [self._scored[key][task] for task in left]
        cost = Cost(store=float(sum(part.write_bytes for part in parts)))
        for part in parts:
            much = part.encode_seconds + part.heard_seconds >= WORTH_SECONDS
            for what, seconds, matters in (("upstream", part.feature_seconds, much), ("head", part.head_seconds, True)):
                if seconds is not None:
                    cost.seconds = (cost.seconds or 0.0) + seconds
                elif matters:
                    cost.incomplete = True
                    cost.how.append(f"{part.task}: the time of its {what} is not known before it is done")
        if not cost.incomplete:
            cost.seconds = cost.seconds or 0.0
        return cost

    def _estimate(self, stage: Stage) -> dict[str, Any]:
        from speechft.config.compose import compose
        from speechft.superb.estimate import estimate
        from speechft.superb.evaluate import prepare

        upstream = self.survey.upstream(stage.upstream)
        tasks = stage.words[4].split(",")
        cfg = {**compose("eval", stage.words[5:-2]), "out": stage.words[-1]}
        ready, sources, chosen = prepare({"stand-in": upstream}, tasks, None, None, cfg)
        with Progress() as progress:
            return {part.task: part for part in estimate(ready, sources, chosen, self.measure, progress)}


def space(
    stages: Sequence[Stage], costs: Sequence[Cost], done: Sequence[bool], request: Request
) -> tuple[list[str], list[str]]:
    """Lines on disk, and what is too little of it. What no figure is known of is said to be unknown, never 0."""
    from speechft.files import cache_dir

    stores = [word.partition("=")[2] for stage in stages for word in stage.words if word.startswith("store=")]
    store = (Path(stores[-1]) if stores else cache_dir() / "features").expanduser().resolve()
    places = {
        "runs and merged models": (request.out.expanduser().resolve(), sum(cost.disk for cost in costs)),
        "features": (store, sum(cost.store for cost in costs)),
    }
    left = [(stage.kind, cost) for stage, cost, over in zip(stages, costs, done, strict=True) if not over]
    unknown = {
        "runs and merged models": any(kind in ("train", "merge") and not cost.disk for kind, cost in left),
        "features": any(kind == "eval" and cost.seconds is None for kind, cost in left),
    }
    lines, problems = [], []
    disks: dict[int, list[str]] = {}  # what goes to the same one
    room: dict[int, int] = {}
    for what, (folder, size) in places.items():
        disk, free = _disk(folder)
        disks.setdefault(disk, []).append(what)
        room[disk] = free
        amount = f"{size / 1e9:.1f} GB{' and what is not known' if unknown[what] else ''}"
        amount = "not known" if unknown[what] and not size else amount
        lines.append(f"{what}: {amount} in {folder}, which has {free / 1e9:.1f} GB free")
    for disk, shared in disks.items():
        folder, total, free = places[shared[0]][0], sum(places[what][1] for what in shared), room[disk]
        if total > free:
            elsewhere = " or ".join({"features": "eval.store=DIR"}.get(what, "--out") for what in shared)
            problems.append(
                f"{' and '.join(shared)} take {total / 1e9:.1f} GB and {folder} has {free / 1e9:.1f}: "
                f"move them ({elsewhere})"
            )
    return lines, problems


def _disk(folder: Path) -> tuple[int, int]:
    """The file system that a folder is on, or would be: its number, and the bytes free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing.stat().st_dev, shutil.disk_usage(existing).free
