"""SUPERB's recipes: wall time of s3prl's own loop over that of the fast engine, on one machine in one run.

Both train the same experts on the same generated corpora, with an upstream of the same random weights: s3prl's loop
with s3prl's HuBERT, in float32, the fast engine with ours, in `--precision`. What is measured are micro-batches,
encoding and evaluations; the whole recipe is extrapolated from them (`scale.py`), which the output says.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from speechft.bench.corpora import Sizes, make
from speechft.bench.counts import check_counts
from speechft.bench.forward import SIZES
from speechft.bench.scale import OFFICIAL, Measured, extrapolate
from speechft.bench.sides import Fast, Theirs, models
from speechft.console import say
from speechft.errors import UsageError
from speechft.superb import compat
from speechft.superb.quiet import quiet
from speechft.superb.settings import batch_seconds_of, compose, resolve_device
from speechft.superb.tasks import get_task
from speechft.upstreams.numerics import Numerics
from speechft.versions import versions

TASKS = ("ks", "sid", "pr")
RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@dataclass(frozen=True)
class Setting:
    """What is measured; every field is an option of the command."""

    device: str = "cpu"
    precision: str = "no"
    tasks: tuple[str, ...] = TASKS
    steps: int = 1
    head_steps: int = 60
    repetitions: int = 2
    rates: int = 5
    speaker_seconds: float = 8.2
    sentence_seconds: float = 4.0
    batch: int | None = None
    rows: int = 8000
    batch_seconds: float = 8.0
    threads: int | None = None
    seed: int = 0
    size: str = "base"

    @classmethod
    def read(cls, arguments: Namespace) -> Setting:
        """From the command line.

        Raises:
            UsageError: a value that makes no sense.
        """
        check_counts(arguments, ("steps", "head_steps", "repetitions", "rates", "rows", "threads", "batch"))
        if arguments.rates > len(RATES):
            raise UsageError(f"--rates is {arguments.rates}", f"at most {len(RATES)}")
        for name in ("speaker_seconds", "sentence_seconds", "batch_seconds"):
            if getattr(arguments, name) is not None and not getattr(arguments, name) >= 0.5:
                shown = f"--{name.replace('_', '-')} is {getattr(arguments, name):g}"
                raise UsageError(shown, "give at least 0.5")
        if arguments.size not in SIZES:
            raise UsageError(f"unknown --size {arguments.size!r}", f"known: {', '.join(SIZES)}")
        unknown = [task for task in arguments.tasks if task not in TASKS]
        if unknown or not arguments.tasks:
            raise UsageError(f"unknown task {', '.join(unknown) or '(none)'}", f"known: {', '.join(TASKS)}")
        values = {name: getattr(arguments, name) for name in cls.__dataclass_fields__}
        values["precision"] = Numerics.read(arguments.precision, False).precision
        device = resolve_device(arguments.device)
        values |= {"device": device, "batch_seconds": batch_seconds_of(arguments.batch_seconds, device)}
        return cls(**{**values, "tasks": tuple(arguments.tasks)})


def measure(setting: Setting) -> dict[str, Any]:
    """Run the comparison; returns every figure, as the last line of `scripts/bench superb` has it."""
    before = torch.get_num_threads()
    if setting.threads:
        torch.set_num_threads(setting.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="speechft-bench-") as folder:
            compat.install()
            return _measure(setting, Path(folder))
    finally:
        torch.set_num_threads(before)


def _measure(setting: Setting, folder: Path) -> dict[str, Any]:
    log = folder / "s3prl.log"
    with quiet(log):
        ours, theirs, ready = models(setting, folder)
    official = compose()["superb"]
    sizes = _sizes(setting, official)
    data = {**compose()["data"], **make(folder / "corpora", sizes, setting.seed)}
    tasks = {}
    for name in setting.tasks:
        recipe = official[name]
        small = {"accumulate": 1, "num_workers": 0, "batch_size": setting.batch or recipe["batch_size"]}
        fast = Fast(setting, get_task(name), {**recipe, **small}, data, ours, folder / name)
        reference = Theirs(setting, get_task(name), {**recipe, **small}, data, theirs, folder / f"{name}-s3prl")
        bare = Theirs(setting, get_task(name), {**recipe, **small}, data, ready, folder / f"{name}-head")
        rates = list(RATES[: setting.rates]) if name == "pr" else []
        rounds: list[dict[str, float]] = []
        for repetition in range(setting.repetitions):
            say(f"{name}, round {repetition + 1} of {setting.repetitions}: s3prl's loop")
            with quiet(log):
                figures = reference.measure(setting.steps, evaluate=True)
            say(f"{name}, round {repetition + 1} of {setting.repetitions}: fast engine")
            with quiet(log):
                figures |= fast.measure(rates, stream=name == "pr")
                figures["their_head"] = bare.measure(setting.head_steps // 4 + 1, evaluate=False)["theirs"]
            rounds.append(figures)
        tasks[name] = _summary(setting, name, recipe, fast, rounds, max(1, len(rates)))
    record: dict[str, Any] = {"bench": "superb", "extrapolated": True}
    for name, one in tasks.items():
        full = one["full_recipe"]
        record[f"ratio_{name}"] = full["streamed" if one["streams"] else "speechft"]["ratio"]
        if "streamed" in full:
            record[f"ratio_{name}_stored"] = full["speechft"]["ratio"]
        record[f"head_ratio_{name}"] = one["head_steps_per_second"]["ratio"]
    return {
        **record, **asdict(setting),
        "tasks": tasks, "official": {name: asdict(OFFICIAL[name]) for name in setting.tasks},
        "device_name": torch.cuda.get_device_name(setting.device) if "cuda" in setting.device else _cpus(),
        "threads": setting.threads or torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip


def _cpus() -> str:
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPUs"


def _sizes(setting: Setting, official: Mapping[str, Any]) -> Sizes:
    """One batch each and a little for evaluation."""
    count = {name: setting.batch or int(official[name]["batch_size"]) for name in TASKS}
    return Sizes(
        words=-(-count["ks"] // 11), speakers=count["sid"], sentences=count["pr"], evaluated=2,
        speaker_seconds=setting.speaker_seconds, sentence_seconds=setting.sentence_seconds,
        noise_seconds=60.0 if setting.size == "base" else 2.0,
    )  # fmt: skip


def _summary(
    setting: Setting, name: str, recipe: Mapping[str, Any], fast: Fast, rounds: list[dict[str, float]], rates: int
) -> dict[str, Any]:
    medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    measured = Measured(
        mean_seconds=fast.mean_seconds, encode=medians["encode"], ours=medians["ours"],
        streamed=medians.get("streamed"), theirs=medians["theirs"], our_dev=medians["our_dev"],
        their_dev=medians["their_dev"], row_bytes=fast.row_bytes, rates=rates, frames=fast.task.kind == "frames",
    )  # fmt: skip
    full = extrapolate(name, measured, recipe)
    accumulate = int(recipe["accumulate"])
    heads = {"speechft": 1 / medians["our_head"] / accumulate, "s3prl": 1 / medians["their_head"] / accumulate}
    return {
        "measured": asdict(measured), "rounds": rounds,
        "encode_seconds_per_hour_of_audio": 3600 * measured.encode,
        "steps_per_second": {
            "speechft": 1 / measured.ours / accumulate, "s3prl": 1 / measured.theirs / accumulate,
            **({"speechft_streamed": 1 / measured.streamed / accumulate} if measured.streamed else {}),
        },
        "head_steps_per_second": {**heads, "ratio": heads["speechft"] / heads["s3prl"]},
        "peak_memory_gb": {
            side: max(one[key] for one in rounds) / 1e9
            for side, key in (("speechft", "our_peak"), ("s3prl", "their_peak"))
        },
        "full_recipe": full,
        # what the fast engine does with its default budget
        "streams": measured.streamed is not None and full["speechft"]["disk_gb"] > float(compose()["budget_gb"]),
        "steps": int(recipe["steps"]), "accumulate": accumulate, "batch_size": int(recipe["batch_size"]),
        "measured_batch_size": setting.batch or int(recipe["batch_size"]),
    }  # fmt: skip


def table(record: Mapping[str, Any]) -> list[str]:
    """The figures for people, as Markdown."""
    where = f"{record['device_name']}, {record['threads']} threads"
    lines = [
        f"HuBERT {record['size']} with random weights; {where}; the fast engine's upstream in precision "
        f"{record['precision']}, s3prl's loop in float32; medians of {record['repetitions']} rounds; hours of "
        "the full official recipe are extrapolated from measured micro-batches, encoding and evaluations.",
        "",
        "| task | encoding an hour | step, speechft | step, s3prl | full, speechft | full, s3prl | ratio "
        "| without evaluations | disk | peak memory, speechft | s3prl |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in record["tasks"].items():
        full, rates = one["full_recipe"], one["measured"]["rates"]
        for kind, key in (("stored", "speechft"), ("streamed", "streamed")):
            if key not in full:
                continue
            label = name if "streamed" not in full else f"{name}, {rates} rates, {kind}"
            step = one["measured"]["streamed" if kind == "streamed" else "ours"] * one["accumulate"]
            lines.append(
                f"| {label} | {one['encode_seconds_per_hour_of_audio']:.0f} s | {step:.4f} s "
                f"| {one['measured']['theirs'] * one['accumulate']:.2f} s | {full[key]['hours']:.1f} h "
                f"| {full['s3prl']['hours']:.0f} h | {full[key]['ratio']:.1f} "
                f"| {full[key]['ratio_without_evaluations']:.1f} | {full[key]['disk_gb']:.1f} GB "
                f"| {one['peak_memory_gb']['speechft']:.2f} GB | {one['peak_memory_gb']['s3prl']:.2f} GB |"
            )
    lines += ["", "| head alone, steps a second | speechft | s3prl | ratio |", "|---|---|---|---|"]
    for name, one in record["tasks"].items():
        rate = one["head_steps_per_second"]
        lines.append(f"| {name} | {rate['speechft']:.1f} | {rate['s3prl']:.2f} | {rate['ratio']:.1f} |")
    return [*lines, ""]
