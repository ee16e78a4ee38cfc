"""`speechft train`: stage 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result

_EPILOG = """examples:
  speechft train experiment=smoke
  speechft train upstream=hubert_base task=asr data=librispeech data.root=/data/LibriSpeech
  speechft train --check upstream=hubert_base task=asr data=librispeech data.root=/data/LibriSpeech
  speechft train strategy=regular trainer.lr=5e-5 --out runs/regular
  speechft train -m strategy=stable,regular seed=0,1,2 experiment=smoke
  speechft train -m seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=3 experiment=smoke

groups: upstream= task= strategy= data= trainer= experiment=
The same command goes on where an interrupted run stopped; an --out of its own begins another one."""


def run(words: Sequence[str]) -> int:
    parser = Parser("train", "Stage 1: fine-tune an upstream on a task, stably.", _EPILOG, "train")
    parser.add_argument("--out", help="the run's folder (default: a dated one under runs/)")
    parser.add_argument("--check", action="store_true", help="only look at the data: what is there, what is bad")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated overrides")
    parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra overrides, key=value")
    arguments = parser.parse_intermixed_args(list(words))
    overrides = check_overrides(arguments.overrides)
    if arguments.check:
        return _check(overrides, arguments.out, arguments.json)
    if arguments.multirun:
        return _sweep(overrides, arguments.out, arguments.json)

    from speechft.config.compose import compose

    settings = compose("train", overrides)  # a mistyped word is said before torch is imported, which takes seconds

    from speechft.train import devices
    from speechft.train.finetune import finetune
    from speechft.train.metrics import read_metrics

    done = finetune(settings, arguments.out)
    devices.leave()
    if not devices.is_first():
        return 0
    metrics: dict[str, Any] = {}
    for line in read_metrics(done.metrics):
        metrics |= {key: value for key, value in line.items() if key.startswith("dev_") or key == "loss"}
    value = {"run": str(done.folder), "finetuned": str(done.finetuned), "metrics": metrics}
    result(arguments.json, value, [str(done.finetuned)])
    return 0


def _check(overrides: list[str], out: str | None, as_json: bool) -> int:
    """Exit code 1 if anything is bad, so that a script can ask before it queues a job."""
    from speechft.train.check import check

    found = check(overrides, out)
    lines = found.pop("lines")
    result(as_json, found, lines)
    return 1 if found["bad"] else 0


def _sweep(overrides: list[str], out: str | None, as_json: bool) -> int:
    """Every combination as a run of its own, through Hydra's launcher (joblib and submitit plug in there)."""
    from speechft.cli.sweep import first_values, raise_failed, sweep
    from speechft.config.compose import compose
    from speechft.errors import Interrupted
    from speechft.runs import choose_folder
    from speechft.train.finetune import finetune

    # Compose the first combination, so that a mistake is one line of ours and not a page of Hydra's.
    compose("train", first_values(overrides))

    def job(settings: dict[str, Any], folder: Path, number: int) -> str:
        del number
        return str(finetune(settings, folder).finetuned)

    folder = Path(out) if out else choose_folder(None, "sweep")
    try:
        done, errors = sweep("train", overrides, job, folder)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted", f"run the same command with --out {folder} to go on from there") from error
    result(as_json, [{"finetuned": folder} for folder in done], done)
    raise_failed("runs", done, errors)
    return 0
