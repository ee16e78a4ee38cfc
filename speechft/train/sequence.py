"""Several tasks one after the other: each starts where the one before ended, and all go back to one θ0 when merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.config.compose import differences, read_config, write_config
from speechft.console import say
from speechft.errors import Interrupted, SpeechFTError, UsageError
from speechft.files import read_json, whole_folder, write_json, write_text
from speechft.runs import Run, find_run, set_latest
from speechft.train import devices
from speechft.train.metrics import read_metrics
from speechft.train.place import owned

if TYPE_CHECKING:
    from speechft.data.joint import Part


def going_on(settings: Mapping[str, Any], out: str | Path | None = None) -> dict[str, Any]:
    """A configuration with `after: RUN` as one that starts from that run's result; any other as it is.

    Args:
        out: the folder of the run that goes on; `after=runs/latest` typed again means what it meant the first time,
            though the latest run is now this one.

    Raises:
        UsageError: `after` is no run, or this one.
        SpeechFTError: the run is not finished.
    """
    if not settings.get("after"):
        return dict(settings)
    before = find_run(str(settings["after"]))
    recorded = read_config(before.config)
    if out is not None and before.folder == Path(out).expanduser().resolve():
        if not recorded.get("after"):
            raise UsageError(f"after={settings['after']} is this run itself", "name the run to start from")
        before = find_run(recorded["after"])
    elif out is None and not before.finished and Path(str(settings["after"])).name == "latest":
        # Without `out` the latest run is this one if it is the same command's.
        started = find_run(recorded["after"]) if recorded.get("after") else before
        before = before if differences(recorded, _from(settings, started)) else started
    if not before.finished:
        raise SpeechFTError(f"{before.folder} is not finished", "run its train command again, then this one")
    return _from(settings, before)


def _from(settings: Mapping[str, Any], before: Run) -> dict[str, Any]:
    upstream = {**read_config(before.config)["upstream"], "source": str(before.finetuned), "random_seed": None}
    return {**settings, "after": str(before.folder), "upstream": upstream}


def origin(settings: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What `pretrained.json` says: θ0, which merging compares with, and with `after` what the run started from.

    Args:
        settings: as `going_on` gave them.
        record: of the upstream that was loaded.
    """
    if not settings.get("after"):
        return dict(record)
    first = read_json(Run(Path(settings["after"])).pretrained)
    started = {"run": settings["after"], "source": record["source"], "sha256": record["sha256"]}
    return {**first, "versions": record["versions"], "started_from": started}


def started_with(record: Mapping[str, Any]) -> str:
    """The hash of the weights that a run of this `pretrained.json` started from."""
    return str(record.get("started_from", record)["sha256"])


def pretrained(upstream: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The section `upstream` of a run as that of θ0, where the run itself started from another one's result.

    Args:
        upstream: of the run's configuration.
        record: its `pretrained.json`.
    """
    if "started_from" not in record:
        return dict(upstream)
    return {**upstream, "name": record["name"], "source": record["source"]}


def train_in_turn(settings: Mapping[str, Any], run: Run, latest: bool, held: bool = False) -> Run:
    """One run for each part of `task.tasks`, in folders `1-NAME`, `2-NAME` ...; the last one's result is the result.

    Every part resumes by itself. `config.yaml`, `pretrained.json` and `metrics.jsonl` of the whole are written at the
    end, so that a mistake in a later part can be mended; parts that have begun stay as they are, in their order. Until
    then `sequence.yaml` says what the whole is, so that the same command finds it.

    Args:
        settings: the whole's.
        run: its folder.
        latest: point `runs/latest` at it, at the end.
        held: whether its lock is held already.

    Raises:
        UsageError: as `finetune`; or the folder has other parts, or these in another order.
        SpeechFTError: as `finetune`; an interruption names the whole's folder.
    """
    from speechft.data.joint import read_parts

    parts = read_parts(settings["task"].get("tasks"), ("trainer",))
    _check_order(run, list(parts))
    first, new = devices.is_first(), not run.folder.exists()
    try:
        with owned(run, held) if first else nullcontext():
            if first:
                write_config(run.sequence, settings)
            try:
                stages = _in_turn(settings, run, parts)
            finally:
                if first and not _begun(run):  # a mistake before the start leaves no run
                    run.sequence.unlink()
            if first:
                _finish(run, settings, stages)
    finally:
        if first and new:
            with suppress(OSError):  # it is not empty
                run.folder.rmdir()
    if first:
        if latest:
            set_latest(run.folder)
        say(f"fine-tuned upstream: {run.finetuned}")
    return run


def _finish(run: Run, settings: Mapping[str, Any], stages: Sequence[tuple[str, Run]]) -> None:
    """Write what the whole has of its parts."""
    last = stages[-1][1]
    lines = [{"stage": name, **line} for name, stage in stages for line in read_metrics(stage.metrics)]
    write_text(run.metrics, "".join(json.dumps(line) + "\n" for line in lines))
    write_json(run.pretrained, read_json(last.pretrained))
    write_config(run.config, settings)
    with whole_folder(run.finetuned) as temporary:
        shutil.copytree(last.finetuned, temporary, dirs_exist_ok=True)
    run.sequence.unlink()


def _in_turn(settings: Mapping[str, Any], run: Run, parts: Mapping[str, Part]) -> list[tuple[str, Run]]:
    from speechft.train.finetune import finetune

    before, stages = settings.get("after"), []
    for number, part in enumerate(parts.values(), 1):
        if devices.is_first():
            say(f"{number} of {len(parts)}: {part.name}")
        folder = run.folder / f"{number}-{part.name}"
        try:
            stage = finetune(stage_of(settings, part, before), folder, latest=False)
        except Interrupted as error:
            where = f"the same command goes on from there, in {run.folder}"
            raise Interrupted(f"{error.what} of {number}-{part.name}", where) from error
        before = str(stage.folder)
        stages.append((part.name, stage))
    return stages


def _begun(run: Run) -> list[str]:
    """Names of the parts' folders in which training has begun."""
    return [path.parent.name for path in run.folder.glob("*/config.yaml") if path.parent.name[0].isdigit()]


def _check_order(run: Run, names: list[str]) -> None:
    """Raises: UsageError: a part that has begun here is none of these, or was at another place."""
    wanted = {f"{number}-{name}" for number, name in enumerate(names, 1)}
    begun = set(_begun(run))
    if begun - wanted:
        raise UsageError(
            f"{run.folder} holds {', '.join(sorted(begun - wanted))}, and these parts are {', '.join(sorted(wanted))}",
            "choose another --out",
        )


def stage_of(settings: Mapping[str, Any], part: Part, before: str | None = None) -> dict[str, Any]:
    """The configuration of one part of a sequence.

    Args:
        settings: the whole's.
        part: the part.
        before: the run of the part before, if there is one.
    """
    return {
        **settings,
        "name": f"{settings['name']}-{part.name}",
        "task": part.task,
        "data": {**settings["data"], **part.data},
        "trainer": {**settings["trainer"], **part.trainer},
        "after": before,
    }
