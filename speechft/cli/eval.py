"""`speechft eval superb`: stage 3."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.errors import SpeechFTError, UsageError

_EPILOG = """examples:
  speechft eval superb                                       what the latest run merged
  speechft eval superb hubert_base runs/NAME --tasks pr,sid data.librispeech=/data/LibriSpeech \\
      data.lexicon=/data/lexicon.txt data.voxceleb1=/data/VoxCeleb1 data.iden_split=/data/iden_split.txt
  speechft eval superb hubert_nano fbank --tasks sid data.synthetic=demo superb.sid.steps=2000 lr=[1e-3,1e-2]
  speechft eval superb -m hubert_base --tasks pr,asr,sid hydra/launcher=joblib hydra.launcher.n_jobs=3 ...

An UPSTREAM is a known name, a run (its merged models), a Hugging Face folder or hub name; words with = are overrides.
Finished tasks are not computed again; an interrupted one goes on."""


def run(words: Sequence[str]) -> int:
    if not words:
        raise UsageError("speechft eval names no benchmark", "speechft eval superb; --help has its words")
    if words[0] in ("-h", "--help"):
        words = ["superb", "--help"]
    if words[0] != "superb":
        raise UsageError(f"unknown benchmark {words[0]!r}", "known: superb, as in speechft eval superb")
    parser = Parser("eval superb", "Stage 3: score frozen upstreams on SUPERB, through s3prl.", _EPILOG, "eval")
    parser.add_argument("words", nargs="*", metavar="UPSTREAM|override", help="what to score, and key=value settings")
    parser.add_argument(
        "--tasks", help="comma-separated, of pr asr ks qbe sid asv sd ic sf er se ss (default: whose files are given)"
    )
    parser.add_argument(
        "--engine", choices=("fast", "s3prl"), help="default fast: the frozen features are computed once"
    )
    parser.add_argument("--out", metavar="DIR", help="results (default: the run's superb/, or runs/superb)")
    parser.add_argument(
        "-m", "--multirun", action="store_true",
        help="each task of each upstream is a job of its own, through Hydra's launcher (hydra/launcher=joblib, ...)",
    )  # fmt: skip
    parser.add_argument("--estimate", action="store_true", help="only say what audio, disk and time it would take")
    arguments = parser.parse_intermixed_args(list(words[1:]))
    upstreams = [word for word in arguments.words if "=" not in word]
    overrides = check_overrides([word.removeprefix("eval.") for word in arguments.words if "=" in word])

    from speechft.cli.sweep import raise_failed
    from speechft.console import say
    from speechft.runs import find_run, is_run, runs_root
    from speechft.superb.evaluate import evaluate_all, prepare
    from speechft.superb.settings import compose

    if arguments.multirun:
        from speechft.cli.sweep import first_values

        swept = [word for word, one in zip(overrides, first_values(overrides), strict=True) if word != one]
        if swept:
            raise UsageError(
                f"{swept[0]} would give several results one name", "run it once for each, with an --out of its own"
            )
    settings = compose(overrides)
    folder = runs_root() / "superb"
    if not upstreams:
        latest = find_run(None)
        if not latest.merged_models():
            raise UsageError(
                f"{latest.folder} has no merged model", "merge it first (speechft merge), or name an upstream"
            )
        upstreams, folder = [str(latest.folder)], latest.superb
    elif len(upstreams) == 1 and is_run(Path(upstreams[0]).expanduser()):
        folder = find_run(upstreams[0]).superb
    for one in upstreams:
        run = find_run(one) if is_run(Path(one).expanduser()) else None
        if run is not None and run.finished and not run.merged_models():
            say(f"{one} has no merged model: its fine-tuned one is scored as it is (speechft merge interpolates)")
    out = Path(arguments.out or settings.get("out") or folder)
    tasks = arguments.tasks.split(",") if arguments.tasks else None
    only = arguments.estimate or bool(settings.get("estimate"))
    if _estimate(upstreams, tasks, arguments.engine, out, settings, overrides, only, arguments.json):
        return 0
    if arguments.multirun:
        return _jobs(upstreams, tasks, arguments.engine, out, settings, overrides, arguments.json)
    results, errors = evaluate_all(*prepare(upstreams, tasks, arguments.engine, out, settings))
    result(arguments.json, results, [_line(one) for one in results])
    if len(errors) == 1:
        raise errors[0]
    raise_failed("evaluations", results, errors)
    return 0


def _estimate(
    upstreams: list[str], tasks: list[str] | None, engine: str | None, out: Path, settings: dict[str, Any],
    overrides: list[str], only: bool, as_json: bool,
) -> bool:  # fmt: skip
    """Say what it will take: on stderr before the work, or on stdout instead of it. Returns whether that was all."""
    from speechft.console import Progress, say
    from speechft.superb import estimate
    from speechft.superb.evaluate import prepare

    ready, sources, chosen = prepare(upstreams, tasks, engine, out, _here(settings, overrides))
    try:
        with Progress() as progress:
            parts = estimate.estimate(ready, sources, chosen, not _elsewhere(overrides), progress)
    except SpeechFTError:
        raise
    except Exception:
        if only:
            raise
        return False  # what is wrong inside s3prl, the evaluation says with its log
    lines = estimate.lines(parts, ready)
    if only:
        result(as_json, estimate.as_json(parts), lines)
    elif estimate.worth_saying(parts):
        say("\n".join(["about what this takes:", *(f"  {line}" for line in lines)]))
    return only


def _elsewhere(overrides: list[str]) -> bool:
    """Whether the jobs run on machines whose devices are not this one's."""
    from speechft.cli.sweep import launcher_of

    return launcher_of(overrides) == "submitit_slurm"


def _here(settings: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    return {**settings, "device": "cpu", "devices": None} if _elsewhere(overrides) else settings


def _line(one: dict[str, Any]) -> str:
    return f"{one['upstream']['name']}\t{one['task']}\t{one['metric']}\t{one['metrics'][one['metric']]:.4f}"


def _jobs(
    upstreams: list[str], tasks: list[str] | None, engine: str | None, out: Path, settings: dict[str, Any],
    overrides: list[str], as_json: bool,
) -> int:  # fmt: skip
    """Each task of each upstream as a job of its own; the results are the same files as without `-m`."""
    from speechft.cli.sweep import launcher_of, raise_failed, sweep
    from speechft.superb.evaluate import evaluate, prepare
    from speechft.superb.settings import resolve_devices

    launcher = launcher_of(overrides)
    ready, sources, chosen = prepare(upstreams, tasks, engine, out, _here(settings, overrides))
    jobs = [(name, str(source), task.name) for name, source in sources for task in chosen]
    folder, used = ready.out, ready.engine

    def job(config: dict[str, Any], place: Path, number: int) -> dict[str, Any]:
        del place, number
        index = int(config.pop("job"))
        name, source, task = jobs[index]
        if launcher == "joblib" and config["devices"] is None:  # side by side on one machine: a GPU for each
            found = resolve_devices(str(config["device"]))
            config["device"] = found[index % len(found)]
        return evaluate({name: source}, [task], used, folder, config)[0]

    base = folder / ".jobs" / uuid.uuid4().hex[:8]
    numbers = f"+job={','.join(str(number) for number in range(len(jobs)))}"
    where = "out='" + str(folder).replace("'", "\\'") + "'"
    words = [word for word in overrides if not word.startswith("out=")]
    results, errors = sweep("eval", [*words, where, numbers], job, base)
    if not errors and not (base / ".submitit").exists():  # a queue's logs stay
        shutil.rmtree(base, ignore_errors=True)
        with contextlib.suppress(OSError):  # of other jobs at the same time
            base.parent.rmdir()
    result(as_json, results, [_line(one) for one in results])
    raise_failed("jobs", results, errors)
    return 0
