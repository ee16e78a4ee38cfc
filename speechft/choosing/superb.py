"""Scores that cost what the evaluation costs: chosen SUPERB tasks, through the fast engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.choosing.objectives import Objective, metric_title
from speechft.superb.evaluate import evaluate, prepare
from speechft.upstreams.base import Upstream


class Superb:
    """The main metric of every chosen task on its test set, as `speechft eval superb` gives it.

    Results stay in `out`, so that a report can draw them and a later evaluation of the chosen model finds them.
    Features of candidates would fill the disk, α after α: they are kept apart and removed once an α is scored, but for
    the pre-trained upstream's, and for a `store` that the user has named.

    Args:
        tasks: their names.
        cfg: a composed `configs/eval.yaml`.
        out: where results go.
        scratch: for candidates' features.
        names: α -> the name of its results.
        fine_tuned_for: the name of the fine-tuning task, which may be one of these.

    Raises:
        UsageError, SpeechFTError: as `superb.evaluate`: an unknown task, missing files.
    """

    name = "superb"

    def __init__(
        self, tasks: Sequence[str] | None, cfg: Mapping[str, Any], out: Path, scratch: Path,
        names: Callable[[float], str], fine_tuned_for: str | None = None,
    ) -> None:  # fmt: skip
        self._cfg, self._out, self._scratch, self._names = cfg, out, scratch, names
        settings, _, chosen = prepare({}, tasks, None, out, cfg)
        self._tasks = [task.name for task in chosen]
        self.objectives = [
            Objective(task.name, task.higher_better, f"{task.name.upper()} {metric_title(task.metric)} %")
            for task in chosen
        ]
        self.target = self._tasks.index(fine_tuned_for) if fine_tuned_for in self._tasks else None
        self.identity = {
            "score": self.name,
            "tasks": {task.name: settings.fingerprint(task, "") for task in chosen},
        }

    def score(self, alpha: float, upstream: Upstream) -> tuple[dict[str, float], dict[str, Any]]:
        """Scores in per cent; where each result is, is among the details."""
        own = alpha != 0 and not self._cfg.get("store")
        cfg = {**self._cfg, "store": str(self._scratch)} if own else self._cfg
        name = self._names(alpha)
        results = evaluate({name: upstream}, self._tasks, None, self._out, cfg)
        if own:
            shutil.rmtree(self._scratch, ignore_errors=True)
        scores = {one["task"]: 100 * float(one["metrics"][one["metric"]]) for one in results}
        return scores, {"results": {one["task"]: f"{name}/{one['task']}.json" for one in results}}
