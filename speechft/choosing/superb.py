"""Scores that cost what the evaluation costs: chosen SUPERB tasks, through the fast engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.choosing.objectives import Objective, metric_title
from speechft.errors import SpeechFTError
from speechft.superb.earlier import finished
from speechft.superb.evaluate import evaluate, prepare
from speechft.upstreams.base import Upstream


class Superb:
    """The main metric of every chosen task, as `speechft eval superb` gives it.

    On the dev set, unless told: an α chosen by test scores would make the chosen model's test scores too good. ASV,
    which has no dev set, is scored on its trials, as its states are.

    Results stay in `out`, so that a report can draw them and a later evaluation of the chosen model finds them; where
    results of another recipe stand there, which somebody asked for by itself, in `aside`.
    Features of candidates would fill the disk, α after α: they are kept apart and removed once an α is scored, but for
    the pre-trained upstream's, and for a `store` that the user has named.

    Args:
        tasks: their names.
        cfg: a composed `configs/eval.yaml`.
        out: where results go.
        aside: where they go instead of replacing others.
        scratch: for candidates' features.
        names: α -> the name of its results.
        fine_tuned_for: the name of the fine-tuning task, which may be one of these.
        on: `dev` or `test`.

    Raises:
        UsageError, SpeechFTError: as `superb.evaluate`: an unknown task, missing files.
    """

    name = "superb"

    def __init__(
        self, tasks: Sequence[str] | None, cfg: Mapping[str, Any], out: Path, scratch: Path,
        names: Callable[[float], str], fine_tuned_for: str | None = None, on: str = "dev", aside: Path | None = None,
    ) -> None:  # fmt: skip
        self._aside, self.notes = aside or out, list[str]()
        self._cfg, self._out, self._scratch, self._names = cfg, out, scratch, names
        settings, _, chosen = prepare({}, tasks, None, out, cfg)
        self._settings, self._chosen = settings, chosen
        self._tasks = [task.name for task in chosen]
        self._places = {
            task.name: ("dev", task.dev_metric or task.metric)
            if on == "dev" and task.selected_on == "dev"
            else ("metrics", task.metric)
            for task in chosen
        }
        self.objectives = [Objective(task.name, task.higher_better, self._title(task.name)) for task in chosen]
        self.target = self._tasks.index(fine_tuned_for) if fine_tuned_for in self._tasks else None
        self.identity = {
            "score": self.name,
            "on": on,
            "tasks": {task.name: settings.fingerprint(task, "") for task in chosen},
        }

    def score(self, alpha: float, upstream: Upstream) -> tuple[dict[str, float], dict[str, Any]]:
        """Scores in per cent; the whole evaluations' metrics are among the details.

        Raises:
            SpeechFTError: no state of a training had a score on the dev set.
        """
        own = alpha != 0 and not self._cfg.get("store")
        cfg = {**self._cfg, "store": str(self._scratch)} if own else self._cfg
        name = self._names(alpha)
        out = self._place(name, upstream)
        results = evaluate({name: upstream}, self._tasks, None, out, cfg)
        if own:
            shutil.rmtree(self._scratch, ignore_errors=True)
        details = {
            one["task"]: {
                "file": os.path.relpath(out / name / f"{one['task']}.json", self._out),
                "metrics": one["metrics"],
                "dev": one["dev"],
            }
            for one in results
        }
        return {one["task"]: 100 * self._value(one) for one in results}, details

    def _place(self, name: str, upstream: Upstream) -> Path:
        """`out`, unless results by another recipe stand there under this name."""
        key = upstream.identity.key
        for task in self._chosen:
            file = self._out / name / f"{task.name}.json"
            if file.is_file() and finished(file, self._settings.fingerprint(task, key)) is None:
                note = f"{self._out} keeps its results by another recipe; this sweep's are in {self._aside}"
                self.notes = [note]
                return self._aside
        return self._out

    def _value(self, result: Mapping[str, Any]) -> float:
        where, metric = self._places[result["task"]]
        if metric not in result[where]:  # as with an accuracy of 0 throughout
            raise SpeechFTError(
                f"{result['task']} has no {metric} on its dev set", "give it more steps or another lr, or use --on test"
            )
        return float(result[where][metric])

    def _title(self, task: str) -> str:
        where, metric = self._places[task]
        return f"{task.upper()} {metric_title(metric)} % ({'dev' if where == 'dev' else 'test'})"
