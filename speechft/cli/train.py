"""`speechft train`: stage 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.errors import SpeechFTError, UsageError

_EPILOG = """examples:
  speechft train experiment=smoke
  speechft train upstream=hubert_base task=asr data=librispeech data.root=/data/LibriSpeech
  speechft train strategy=regular trainer.lr=5e-5 --out runs/regular
  speechft train -m strategy=stable,regular seed=0,1,2 experiment=smoke

groups: upstream= task= strategy= data= trainer= experiment=
The same command with the same --out goes on where an interrupted run stopped."""


def run(words: Sequence[str]) -> int:
    parser = Parser("train", "Stage 1: fine-tune an upstream on a task, stably.", _EPILOG)
    parser.add_argument("--out", help="the run's folder (default: a dated one under runs/)")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated overrides")
    parser.add_argument("overrides", nargs="*", metavar="override", help="Hydra overrides, key=value")
    arguments = parser.parse_intermixed_args(list(words))
    overrides = check_overrides(arguments.overrides)
    if arguments.multirun:
        return _sweep(overrides, arguments.out, arguments.json)

    from speechft.train.finetune import finetune
    from speechft.train.metrics import read_metrics

    done = finetune(overrides, arguments.out)
    metrics: dict[str, Any] = {}
    for line in read_metrics(done.metrics):
        metrics |= {key: value for key, value in line.items() if key.startswith("dev_") or key == "loss"}
    value = {"run": str(done.folder), "finetuned": str(done.finetuned), "metrics": metrics}
    result(arguments.json, value, [str(done.finetuned)])
    return 0


def _sweep(overrides: list[str], out: str | None, as_json: bool) -> int:
    """Every combination as a run of its own, through Hydra's launcher (joblib and submitit plug in there)."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf

    from speechft.config.compose import compose
    from speechft.config.locate import config_dir
    from speechft.train.finetune import finetune

    # Compose the first combination, so that a mistake is one line of ours and not a page of Hydra's.
    first: list[str] = []
    try:
        for override in OverridesParser.create().parse_overrides(overrides):
            value = next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
            first.append(str(override.input_line) if value is None else f"{override.get_key_element()}={value}")
    except HydraException as error:
        raise UsageError(
            f"an override cannot be read: {str(error).splitlines()[0]}", "see speechft train --help"
        ) from error
    compose("train", first)

    done: list[str] = []
    failed: list[SpeechFTError] = []

    def job(config: DictConfig) -> None:
        settings = OmegaConf.to_container(config, resolve=True)
        assert isinstance(settings, dict)
        folder = HydraConfig.get().runtime.output_dir
        try:
            done.append(str(finetune({str(key): value for key, value in settings.items()}, folder).finetuned))
        except SpeechFTError as error:  # the other combinations go on
            print(f"{folder}: {error}", file=sys.stderr)
            failed.append(error)

    before = sys.argv
    where = ["hydra.sweep.dir='" + str(out).replace("'", "\\'") + "'"] if out else []
    sys.argv = ["speechft", "--multirun", *overrides, *where]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(job)()
    finally:
        sys.argv = before
    result(as_json, [{"finetuned": folder} for folder in done], done)
    if failed:
        raise SpeechFTError(
            f"{len(failed)} of {len(failed) + len(done)} runs failed, first: {failed[0].what}", failed[0].mend
        )
    return 0
