"""`speechft train`: stage 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.errors import UsageError

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
        return _sweep(overrides, arguments.out)

    from speechft.train.finetune import finetune
    from speechft.train.metrics import read_metrics

    done = finetune(overrides, arguments.out)
    metrics: dict[str, Any] = {}
    for line in read_metrics(done.metrics):
        metrics |= {key: value for key, value in line.items() if key.startswith("dev_") or key == "loss"}
    value = {"run": str(done.folder), "finetuned": str(done.finetuned), "metrics": metrics}
    result(arguments.json, value, [str(done.finetuned)])
    return 0


def _sweep(overrides: list[str], out: str | None) -> int:
    """Every combination as a run of its own, through Hydra's launcher (joblib and submitit plug in there)."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from speechft.config.locate import config_dir
    from speechft.train.finetune import finetune

    def job(config: DictConfig) -> str:
        settings = OmegaConf.to_container(config, resolve=True)
        if not isinstance(settings, dict):
            raise UsageError("the configuration is empty")
        folder = HydraConfig.get().runtime.output_dir
        return str(finetune({str(key): value for key, value in settings.items()}, folder).finetuned)

    before = sys.argv
    sys.argv = ["speechft", "--multirun", *overrides, *([f"hydra.sweep.dir={out}"] if out else [])]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(job)()
    finally:
        sys.argv = before
    return 0
