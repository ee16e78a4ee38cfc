"""From rows to commands: train, merge, eval superb, report, in the order in which they need one another."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from speechft.checkpoints.folder import WEIGHTS
from speechft.config.compose import compose_section
from speechft.config.locate import read_group
from speechft.reproduce.request import Request, override
from speechft.reproduce.rows import Row, rates, rows
from speechft.runs import Run

_FEWEST_STEPS = 20  # of a scaled training: the head's phase has two of them
_FEWEST_HEAD_STEPS = 10  # of a scaled SUPERB recipe


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        kind: `train`, `merge`, `eval` or `report`.
        words: what follows `speechft`.
        makes: files that are there once it is finished; none: it is always done again.
        needs: weights that it reads, where another stage makes them.
        upstream: choice of `configs/upstream`; empty for a report.
        row: the first row that needs it; empty for what all share.
    """

    kind: str
    words: tuple[str, ...]
    makes: tuple[Path, ...] = ()
    needs: tuple[Path, ...] = ()
    upstream: str = ""
    row: str = ""

    @property
    def command(self) -> str:
        """As a shell takes it."""
        return shlex.join(("speechft", *self.words))


@dataclass(frozen=True)
class _Model:
    """What is scored: what `eval superb` is told, and the name of its results."""

    source: str
    name: str


def plan(chosen: Sequence[Row], request: Request) -> list[Stage]:
    """All commands for some rows, each once."""
    stages: list[Stage] = []
    reports: dict[str, list[Path]] = {}
    for row in chosen:
        for part in [rows()[name] for name in row.merged] or [row]:
            stages.append(train(part, request))
        if row.alphas:
            stages.append(_merge(row, request))
        folds = er_folds(row)
        start = _pretrained(row.upstream, request)
        for model in (start, *_models(row, request)):
            own = "" if model == start else row.name
            for folder, tasks, words in _evaluations(folds, request):
                stages.append(_evaluate(model, folder, tasks, words, row.upstream, own, request))
                place = folder / model.name
                if place not in reports.setdefault(row.scenario, []):
                    reports[row.scenario].append(place)
    stages = list(dict.fromkeys(stages))
    own_first: dict[tuple[str, ...], Stage] = {}
    for stage in stages:  # a run that several rows need is the first one's
        own_first.setdefault(stage.words, stage)
    return [*own_first.values(), *(_report(name, places, request) for name, places in reports.items())]


def paper_of(row: Row) -> dict[str, Any]:
    """The section `paper` of a row's experiment: where its paths go, how much it hears, what deviates."""
    assert row.experiment is not None
    return _paper(row.experiment)


@cache
def _paper(experiment: str) -> dict[str, Any]:
    return compose_section("train", [f"experiment={experiment}"], "paper")


def deviations_of(experiment: str) -> dict[str, str]:
    """What of an experiment differs from the published setting -> how, and why."""
    return {str(key): str(why) for key, why in _paper(experiment)["deviations"].items()}


def er_folds(row: Row) -> list[int] | None:
    """The folds of SUPERB's ER that a row may be scored on; None for all."""
    parts = [rows()[name] for name in row.merged] or [row]
    found = [paper_of(part)["er_folds"] for part in parts]
    return next((folds for folds in found if folds), None)


def train(row: Row, request: Request) -> Stage:
    """Stage 1 of a row that has an experiment; paths that are not given are left out."""
    paper = paper_of(row)
    words = [f"experiment={row.experiment}", f"upstream={row.upstream}"]
    if row.upstream in request.upstreams:
        words.append(override("upstream.source", request.upstreams[row.upstream]))
    places = {**paper["paths"], **paper["optional"]}
    words += [override(key, request.data[name]) for name, key in places.items() if name in request.data]
    if request.scale < 1:
        absent = [f"{key}=absent" for name, key in paper["paths"].items() if name not in request.data]
        words += _scaled_training([*words, *absent], request.scale)
    folder = run_of(row, request).folder
    made = Run(folder).finetuned / WEIGHTS
    return Stage("train", ("train", *words, *request.train, "--out", str(folder)), (made,), (), row.upstream, row.name)


def run_of(row: Row, request: Request) -> Run:
    """Where a row's run is."""
    return Run(request.out / "runs" / row.name)


def _scaled_training(words: list[str], scale: float) -> list[str]:
    found = {"trainer": compose_section("train", words, "trainer")}
    task = compose_section("train", words, "task")
    parts = task["tasks"] if task["kind"] == "sequential" else None
    for name, part in (parts or {}).items():
        found[f"task.tasks.{name}.trainer"] = part.get("trainer") or {}
    return [
        f"{key}.steps={max(_FEWEST_STEPS, round(scale * int(trainer['steps'])))}"
        for key, trainer in found.items()
        if "steps" in trainer
    ]


def _merge(row: Row, request: Request) -> Stage:
    run = run_of(row, request)
    alphas = [f"{alpha:g}" for alpha in row.alphas]
    words = ["merge", str(run.folder), "--alpha", *alphas]
    if row.merged:
        tuned = [str(run_of(rows()[name], request).finetuned) for name in row.merged]
        pretrained = request.upstreams.get(row.upstream, row.upstream)
        words = ["merge", "--pretrained", pretrained, "--finetuned", *tuned, "--alpha", *alphas,
                 "--out", str(run.merged)]  # fmt: skip
    made = tuple(run.merged / f"alpha-{alpha}" / "merge.json" for alpha in alphas)
    needs = tuple(run_of(rows()[name], request).finetuned / WEIGHTS for name in row.merged or [row.name])
    return Stage("merge", tuple(words), made, needs, row.upstream, row.name)


def _pretrained(upstream: str, request: Request) -> _Model:
    from speechft.superb.sources import model_name

    source = request.upstreams.get(upstream, upstream)
    return _Model(source, model_name(source))


def _models(row: Row, request: Request) -> list[_Model]:
    run = run_of(row, request)
    if not row.alphas:
        return [_Model(str(run.finetuned), f"{row.name}-finetuned")]
    return [_Model(str(run.merged / f"alpha-{alpha:g}"), f"{row.name}-alpha-{alpha:g}") for alpha in row.alphas]


def _evaluations(folds: list[int] | None, request: Request) -> list[tuple[Path, list[str], list[str]]]:
    """Folder of results, tasks, overrides. ER has folders of its own: scored on fewer folds it is another score, and a
    report takes the one that all its rows have."""
    others = [task for task in request.tasks if task != "er"]
    found: list[tuple[Path, list[str], list[str]]] = [(request.out / "superb", others, [])] if others else []
    if "er" in request.tasks:
        name = "superb-er" + ("" if folds is None else "-fold" + "".join(map(str, folds)))
        words = [] if folds is None else [f"superb.er.folds=[{','.join(map(str, folds))}]"]
        found.append((request.out / name, ["er"], words))
    return found


def _evaluate(
    model: _Model, folder: Path, tasks: list[str], words: list[str], upstream: str, row: str, request: Request
) -> Stage:
    given = [override(f"data.{name}", request.data[name]) for name in superb_data(tasks) if name in request.data]
    scaled = [word for task in tasks for word in _scaled_recipe(task, request.scale)] if request.scale < 1 else []
    made = tuple(folder / model.name / f"{task}.json" for task in tasks)
    head = ("eval", "superb", model.source, "--tasks", ",".join(tasks))
    searched = [word for task in tasks for word in searched_rates(task, request)]
    words = [*given, *words, *searched, *scaled, *request.evaluate]
    needs = (Path(model.source) / WEIGHTS,) if row else ()
    return Stage("eval", (*head, *words, "--out", str(folder)), made, needs, upstream, row)


def searched_rates(task: str, request: Request) -> list[str]:
    """The override that searches the rate of a task's head, if the table does and the user says nothing of it."""
    told = any(word.lstrip("+").startswith(("lr=", f"superb.{task}.lr=")) for word in request.evaluate)
    return [] if told or task not in rates() else [f"superb.{task}.lr=[{','.join(rates()[task])}]"]


def superb_data(tasks: Sequence[str]) -> list[str]:
    """The names of `data` in `configs/eval.yaml` that some tasks read."""
    from speechft.superb.tasks import get_task

    names = [name for task in tasks for name in (*get_task(task).needs, *get_task(task).optional)]
    names += ["phones"] * ("pr" in tasks)
    splits = ["librispeech_train", "librispeech_dev", "librispeech_test"] * ("librispeech" in names)
    return list(dict.fromkeys([*names, *splits]))


def _scaled_recipe(task: str, scale: float) -> list[str]:
    recipe = read_group("superb", task)
    if "steps" not in recipe:  # nothing is trained
        return []
    steps = max(_FEWEST_HEAD_STEPS, round(scale * int(recipe["steps"])))
    every = min(int(recipe["eval_step"]), max(1, steps // 2))
    return [f"superb.{task}.steps={steps}", f"superb.{task}.eval_step={every}"]


def _report(scenario: str, places: Sequence[Path], request: Request) -> Stage:
    out = str(request.out / "report" / scenario)
    return Stage("report", ("report", *map(str, places), "--reference", "speech-ft", "--out", out))
