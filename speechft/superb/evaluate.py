"""SUPERB scores for upstreams: `evaluate(["hubert_base"], ["sid"], out="superb", cfg=compose([...]))`."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.console import Progress
from speechft.errors import DiskFullError, Interrupted, SpeechFTError, UsageError
from speechft.files import write_json, write_text
from speechft.superb import earlier
from speechft.superb.settings import Settings, compose
from speechft.superb.sources import check_source, company_bytes, in_company, loaded, named
from speechft.superb.tasks import get_task

if TYPE_CHECKING:
    from speechft.superb.fast import Outcome
    from speechft.superb.tasks.base import Task
    from speechft.upstreams.base import Upstream


def evaluate(
    upstreams: Sequence[Any] | Mapping[str, Any],
    tasks: Sequence[str] | None = None,
    engine: str | None = None,
    out: str | Path | None = None,
    cfg: Mapping[str, Any] | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Score every upstream on every task.

    Args:
        upstreams: names, folders, runs, or loaded `Upstream`s; as a mapping, from the names of their result folders.
        tasks, engine, out: as in `cfg`, which they overrule.
        cfg: a composed `configs/eval.yaml` (`settings.compose`), or Hydra overrides such as
            `["data.synthetic=demo", "lr=1e-2"]`; None takes it as it is.
        progress: where to tell what happens; stderr unless given.

    Returns:
        The content of each `OUT/MODEL/TASK.json`, in the order of upstreams, then tasks. Accuracies and error rates are
        fractions, as s3prl's experts give them.

    Raises:
        UsageError: an unknown task, engine or upstream, a value out of range.
        SpeechFTError: missing files (all named before anything is computed), a full disk; or, once all others are
            scored, one that failed, such as by a loss that is NaN.
    """
    results, errors = evaluate_all(*prepare(upstreams, tasks, engine, out, cfg), progress)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SpeechFTError(
            f"{len(errors)} of {len(errors) + len(results)} evaluations failed, first: {errors[0].what}", errors[0].mend
        )
    return results


def evaluate_all(
    settings: Settings, sources: Sequence[tuple[str, Any]], chosen: Sequence[Task], progress: Progress | None = None
) -> tuple[list[dict[str, Any]], list[SpeechFTError]]:
    """Score what `prepare` gave; what failed is handed over beside what was scored, for a task that fails does not stop
    others, which may take days.

    Raises:
        UsageError, SpeechFTError: what would stop the others too: a full disk, an interruption.
    """
    progress = progress or Progress()
    results, errors = [], []
    with progress:
        models = loaded(sources, settings.upstream)
        most = company_bytes(settings.device)
        for name, upstream, later in in_company(models, settings.engine == "fast", most):
            for task in chosen:
                beside = [one for own, one in later if finished_before(settings, own, task, one) is None]
                try:
                    results.append(_evaluate_one(upstream, name, task, settings, progress, beside))
                except (UsageError, Interrupted, DiskFullError):  # would stop the others too
                    raise
                except SpeechFTError as error:
                    progress.say(f"{name} {task.name}: failed: {error.what}")
                    errors.append(error)
    return results, errors


def prepare(
    upstreams: Sequence[Any] | Mapping[str, Any],
    tasks: Sequence[str] | None = None,
    engine: str | None = None,
    out: str | Path | None = None,
    cfg: Mapping[str, Any] | Sequence[str] | None = None,
) -> tuple[Settings, list[tuple[str, Any]], list[Task]]:
    """What `evaluate` would do, checked without loading or computing anything.

    Args:
        upstreams, tasks, engine, out, cfg: as of `evaluate`.

    Returns:
        The settings, the upstreams with the names of their result folders, the tasks.

    Raises:
        UsageError, SpeechFTError: as `evaluate`.
    """
    given = {"tasks": list(tasks) if tasks else None, "engine": engine, "out": str(out) if out else None}
    composed = cfg if isinstance(cfg, Mapping) else compose(cfg or ())
    merged = {**composed, **{k: v for k, v in given.items() if v is not None}}
    settings = Settings.read(merged)
    sources = named(upstreams)
    for _, source in sources:  # a mistyped name shows now, not after hours of the ones before it
        check_source(source)
    chosen = [get_task(name) for name in settings.tasks]
    _check(chosen, settings)
    return settings, sources, chosen


def _check(tasks: Sequence[Task], settings: Settings) -> None:
    """All that is missing of all tasks, in one line.

    Raises:
        SpeechFTError: files.
        UsageError: a wrong setting.
    """
    missing = []
    for task in tasks:
        try:
            task.check(settings.data, settings.superb[task.name])
        except UsageError:
            raise
        except SpeechFTError as error:
            missing.append(error)
    if missing:
        raise SpeechFTError("; ".join(error.what for error in missing), missing[0].mend) from missing[0]


def _evaluate_one(
    upstream: Upstream, name: str, task: Task, settings: Settings, progress: Progress, beside: Sequence[Upstream] = ()
) -> dict[str, Any]:
    """A task of an upstream; features of those `beside` it may be left in the store on the way."""
    result_file = settings.out / name / f"{task.name}.json"
    fingerprint = settings.fingerprint(task, upstream.identity.key)
    finished = finished_before(settings, name, task, upstream)
    if finished is not None:
        earlier.take_up(result_file, fingerprint)
        progress.say(f"{name} {task.name}: finished before, taken from {result_file}")
        return finished
    if replaced := earlier.other(result_file, _told(upstream, task, settings)):
        what = (
            f"another evaluation's result is there ({replaced}) and will be kept in {earlier.FOLDER}/ beside this one"
        )
        progress.say(f"{name} {task.name}: {what}; for both in one report give another --out")
    work = settings.out / name / ".work" / f"{task.name}-{settings.engine}"
    _claim(work, fingerprint)
    began = time.monotonic()
    outcome, data_hash = _guarded(upstream, task, settings, work, fingerprint, progress, beside)
    result = {
        "task": task.name,
        **_told(upstream, task, settings),
        "metrics": {key: value for key, value in outcome.metrics.items() if not key.startswith("loss")},
        "metric": task.metric,
        "higher_better": task.higher_better,
        "lr": outcome.lr,
        **({"lr_search": outcome.search} if outcome.search else {}),
        "steps": outcome.steps,
        "seconds": round(time.monotonic() - began, 3),
        "versions": {package: version(package) for package in ("speechft", "s3prl", "torch", "transformers")},
        "dev": outcome.dev,
        "selected_on": task.selected_on,
        "loss": outcome.metrics.get("loss"),
        "layer_weights": outcome.weights,
        "frames_dtype": settings.frames_dtype if settings.engine == "fast" and task.kind == "frames" else "float32",
        **({"streamed": outcome.streamed} if outcome.streamed else {}),
        "data": data_hash,
        "lists": settings.lists(task),
        "corpus": settings.corpus(task),
        "splits": settings.splits(task),
        "fingerprint": fingerprint,
    }
    combined = outcome.records.get("utterances")  # of a task with variants
    lines = task.utterances(outcome.records) if combined is None else combined
    result["test_utterances"] = len(lines)
    earlier.put_aside(result_file)
    utterances = settings.out / name / f"{task.name}.utterances.jsonl"
    write_text(utterances, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_json(result_file, result)
    for state in work.rglob("state.pt"):
        state.unlink()
    score = outcome.metrics.get(task.metric, float("nan"))
    progress.say(f"{name} {task.name}: {task.metric} {score:.4f} in {result['seconds']:.0f} s, {result_file}")
    return result


def _told(upstream: Upstream, task: Task, settings: Settings) -> dict[str, Any]:
    """What of a result is known before it."""
    return {
        "upstream": upstream.identity.as_dict(),
        "engine": settings.engine,
        "precision": settings.numerics.precision,
        "compile": settings.numerics.compile,
        "seed": settings.seed,
        "settings": dict(settings.superb[task.name]),
    }


def finished_before(settings: Settings, name: str, task: Task, upstream: Upstream) -> dict[str, Any] | None:
    """The result of an earlier evaluation that was the same, or None; it need not be the last one in its place."""
    result_file = settings.out / name / f"{task.name}.json"
    return earlier.finished(result_file, settings.fingerprint(task, upstream.identity.key))


def _claim(work: Path, fingerprint: str) -> None:
    """Keep an interrupted evaluation's folder only if it was the same evaluation."""
    note = work / "fingerprint.json"
    if note.is_file() and note.read_text(encoding="utf-8").strip() == json.dumps(fingerprint):
        return
    shutil.rmtree(work, ignore_errors=True)
    write_json(note, fingerprint)


def _guarded(
    upstream: Upstream, task: Task, settings: Settings, work: Path, fingerprint: str, progress: Progress,
    beside: Sequence[Upstream],
) -> tuple[Outcome, str]:  # fmt: skip
    """Run with s3prl silenced; what it raises becomes one line, with its traceback in the log."""
    import torch

    from speechft.superb import compat, engines
    from speechft.superb.quiet import quiet
    from speechft.superb.variants import run_variants

    log = work / "s3prl.log"
    engine = task.engine(settings.engine) or (engines.fast if settings.engine == "fast" else engines.reference)

    def run(task: Task, work: Path) -> tuple[Outcome, str]:
        task.bar = progress.bar
        with task.environment(work):
            return engine(upstream, task, settings, work, fingerprint, progress, beside)

    with quiet(log):
        compat.install()
        try:
            variants = task.variants(settings.superb[task.name])
            return run_variants(task, variants, work, fingerprint, run) if variants else run(task, work)
        except SpeechFTError:
            raise
        except torch.OutOfMemoryError as error:
            raise SpeechFTError(f"{task.name} ran out of GPU memory", "lower batch_seconds, or device=cpu") from error
        except Exception as error:
            traceback.print_exc()  # into the log
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise SpeechFTError(f"{task.name} failed inside s3prl ({what})", f"see {log}") from error
