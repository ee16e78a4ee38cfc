"""The two ways of an evaluation: s3prl's expert on stored features, and s3prl's own loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.console import Progress
from speechft.errors import SpeechFTError
from speechft.files import sha256_json
from speechft.superb.settings import Settings

if TYPE_CHECKING:
    from speechft.superb.fast import Outcome
    from speechft.superb.tasks.base import Task
    from speechft.upstreams.base import Upstream


def fast(
    upstream: Upstream, task: Task, settings: Settings, work: Path, fingerprint: str, progress: Progress,
    beside: Sequence[Upstream] = (),
) -> tuple[Outcome, str]:  # fmt: skip
    """Stored features, all learning rates side by side; what came out, and a hash of the data.

    Args:
        beside: upstreams that will be scored next, whose features may be computed in the same pass.
    """
    import torch

    from speechft.superb.assemble import assemble
    from speechft.superb.store import FeatureStore

    run = assemble(
        task,
        settings.superb[task.name],
        settings.data,
        upstream,
        FeatureStore(settings.store),
        work / "s3prl",
        seed=settings.seed,
        device=torch.device(settings.device),
        frames_dtype=settings.frames_dtype,
        batch_seconds=settings.batch_seconds,
        budget_gb=settings.budget_gb,
        bar=progress.bar,
        say=progress.say,
        numerics=settings.numerics,
        devices=[torch.device(one) for one in settings.devices],
        beside=beside,
    )
    run.state_file, run.fingerprint = work / "state.pt", fingerprint
    run.rates = settings.superb[task.name]["lr"]
    return run.run(), run.data


def _dev_score(task: Task, outcome: Outcome) -> float:
    metric, sign = task.dev_metric or task.metric, 1 if task.higher_better else -1
    return sign * outcome.dev[metric] if metric in outcome.dev else -math.inf


def reference(
    upstream: Upstream, task: Task, settings: Settings, work: Path, fingerprint: str, progress: Progress,
    beside: Sequence[Upstream] = (),
) -> tuple[Outcome, str]:  # fmt: skip
    """s3prl's loop, once for each learning rate; what came out of the best, and the same hash of the data."""
    from speechft.superb.assemble import plan_splits
    from speechft.superb.bridge import registered
    from speechft.superb.records import Diverged
    from speechft.superb.reference import ReferenceRun

    del beside  # nothing is stored
    del fingerprint  # the folder was cleared if it belonged to another evaluation
    recipe = settings.superb[task.name]
    rates, search = recipe["lr"], []
    best: tuple[Outcome, Any] | None = None
    for lr in rates:
        expdir = work / ("s3prl" if len(rates) == 1 else f"s3prl-{lr:g}")
        expdir.mkdir(parents=True, exist_ok=True)
        config = task.config({**recipe, "lr": lr}, settings.data, expdir)
        with registered(upstream) as hub_name:
            run = ReferenceRun(
                task, config, hub_name, expdir, settings.seed, settings.device, int(recipe["num_workers"]),
                progress.bar(f"{task.name} (s3prl)"),
            )  # fmt: skip
            try:
                outcome = replace(run.run(), lr=lr)
            except Diverged as error:
                if len(rates) == 1:
                    raise
                search.append({"lr": lr, "dev": {}, "stopped": error.what})
                continue
        search.append({"lr": lr, "dev": outcome.dev})
        if best is None or _dev_score(task, outcome) > _dev_score(task, best[0]):
            best = outcome, run.expert
    if best is None:
        raise SpeechFTError(
            f"no learning rate of {task.name} works: {search[0]['stopped']}", f"lower superb.{task.name}.lr"
        )
    outcome, expert = best
    if len(rates) > 1:
        outcome.search = search
    plans = plan_splits(task, expert, upstream, recipe, settings.data, settings.frames_dtype)
    return outcome, sha256_json([key.data for _, key, _ in plans.values()])
