"""Several jobs through Hydra's launchers: one after the other, joblib on one machine, submitit on Slurm."""

from __future__ import annotations

import shutil
import sys
import traceback
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speechft.errors import Interrupted, MissingExtraError, SpeechFTError, UsageError
from speechft.files import read_json, write_json

Job = Callable[[dict[str, Any], Path, int], Any]
"""A job's configuration, its own folder, its number -> what it leaves, as JSON has it."""

_PLUGINS = {
    "joblib": ("hydra-joblib-launcher", "hydra_joblib_launcher"),
    "submitit_local": ("hydra-submitit-launcher", "hydra_submitit_launcher"),
    "submitit_slurm": ("hydra-submitit-launcher", "hydra_submitit_launcher"),
}


def first_values(words: list[str]) -> list[str]:
    """The overrides of the first combination: `seed=0,1` -> `seed=0`.

    Raises:
        UsageError: an override that cannot be read.
        MissingExtraError: of a launcher that is not installed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    launcher = launcher_of(words)
    if launcher in _PLUGINS:
        package, module = _PLUGINS[launcher]
        if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{module}") is None:
            raise MissingExtraError(package, "launchers", f"hydra/launcher={launcher}")
    elif launcher != "basic":
        raise UsageError(f"unknown hydra/launcher {launcher!r}", f"known: basic, {', '.join(_PLUGINS)}")
    first: list[str] = []
    try:
        for override in OverridesParser.create().parse_overrides(words):
            value = next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
            first.append(str(override.input_line) if value is None else f"{override.get_key_element()}={value}")
    except HydraException as error:
        raise UsageError(f"an override cannot be read: {str(error).splitlines()[0]}", "see --help") from error
    return first


def launcher_of(words: list[str]) -> str:
    """The launcher that overrides ask for, `basic` (one job after the other) unless they do."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")]
    return chosen[-1] if chosen else "basic"


def sweep(primary: str, words: list[str], job: Job, folder: Path) -> tuple[list[Any], list[SpeechFTError]]:
    """Run a job for every combination of the overrides; one that fails does not stop the others.

    Args:
        primary: the configuration, `train` or `eval`.
        words: overrides; checked with `first_values` before.
        job: must be picklable by cloudpickle; its result, too, comes back through a file, so the machine it ran on may
            be another one that sees `folder`.
        folder: of the sweep, where job N finds its own folder as `folder/N`.

    Returns:
        What the jobs left, in their order, and the errors of those that failed.

    Raises:
        SpeechFTError: Hydra itself failed.
        KeyboardInterrupt: somebody asked to stop; no further job was begun.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from speechft.config.compose import spelled_out
    from speechft.config.locate import config_dir

    notes = folder.resolve() / f".outcomes-{uuid.uuid4().hex[:8]}"
    notes.mkdir(parents=True)

    def run(config: DictConfig) -> None:
        settings = OmegaConf.to_container(config, resolve=True)
        assert isinstance(settings, dict)
        own = HydraConfig.get()
        number, place = int(own.job.num), Path(own.runtime.output_dir)
        note: dict[str, Any]
        stopped = False
        try:
            note = {"value": job({str(key): value for key, value in settings.items()}, place, number)}
        except SpeechFTError as error:
            note = {"error": [error.what, error.mend]}
            stopped = isinstance(error, Interrupted)
        except Exception as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            note = {"error": [f"{type(error).__name__}: {first}", f"see {notes / f'{number}.json'}"],
                    "traceback": traceback.format_exc()}  # fmt: skip
        if "error" in note:
            print(f"job {number}: {'; '.join(note['error'])}", file=sys.stderr)
        write_json(notes / f"{number}.json", note)
        if stopped and launcher_of(words) == "basic":  # who stops a job in this process means the sweep
            raise KeyboardInterrupt

    where = "hydra.sweep.dir='" + str(folder).replace("'", "\\'") + "'"
    given = any(word.startswith("hydra.sweep.dir=") for word in words)
    before, failure = sys.argv, ""
    sys.argv = ["speechft", "--multirun", *spelled_out(primary, words), *([] if given else [where])]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=primary)(run)()
    except SystemExit:  # Hydra has said why: a job of a queue was cancelled, or a launcher's setting is wrong
        failure = "see above"
    except KeyboardInterrupt:
        shutil.rmtree(notes, ignore_errors=True)
        raise
    finally:
        sys.argv = before
    outcomes = [read_json(path) for path in sorted(notes.glob("*.json"), key=lambda path: int(path.stem))]
    errors = [SpeechFTError(*outcome["error"]) for outcome in outcomes if "error" in outcome]
    if failure:
        errors.append(SpeechFTError(f"hydra/launcher={launcher_of(words)} failed, or lost a job", failure))
    if not any("traceback" in outcome for outcome in outcomes):
        shutil.rmtree(notes, ignore_errors=True)
    return [outcome["value"] for outcome in outcomes if "error" not in outcome], errors


def raise_failed(what: str, done: list[Any], errors: list[SpeechFTError]) -> None:
    """One line for all jobs that failed, if any did.

    Raises:
        SpeechFTError: so.
    """
    if errors:
        count = len(errors)
        raise SpeechFTError(f"{count} of {count + len(done)} {what} failed, first: {errors[0].what}", errors[0].mend)
