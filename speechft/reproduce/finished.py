"""What of a plan is done already: by the same settings, and from the same weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from speechft.config.compose import compose, differences, read_config
from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.reproduce.plan import Stage
from speechft.superb.settings import Settings


def finished(stage: Stage) -> bool:
    """Whether a stage need not be run. One that was made with other settings has to: its command says what to do."""
    if not stage.makes or not all(path.is_file() for path in stage.makes):
        return False
    if stage.kind == "train":
        return not _changed(stage)
    if stage.kind == "merge":
        return _older(stage.needs, stage.makes)
    return not tasks_left(stage)


def tasks_left(stage: Stage) -> list[str]:
    """The SUPERB tasks that a stage still has to score."""
    return [path.stem for path in stage.makes if not _scored(stage, path)]


def _changed(stage: Stage) -> bool:
    before = stage.makes[0].parent.parent / "config.yaml"
    try:
        return bool(differences(read_config(before), compose("train", stage.words[1:-2])))
    except (SpeechFTError, OSError):  # a path that the run had is not given this time
        return True


def _older(needs: tuple[Path, ...], makes: tuple[Path, ...]) -> bool:
    last = max((path.stat().st_mtime_ns for path in needs if path.is_file()), default=0)
    return all(path.stat().st_mtime_ns >= last for path in makes)


def _scored(stage: Stage, path: Path) -> bool:
    """Whether a result is what `eval superb` would take instead of computing it again, as far as its file can tell."""
    from speechft.superb.tasks import get_task
    from speechft.upstreams.base import Identity

    if not path.is_file() or not _older(stage.needs, (path,)):
        return False
    try:
        record = read_json(path)
        upstream = Identity(**record["upstream"])
    except (SpeechFTError, KeyError, TypeError):  # damaged, or of another version
        return False
    wanted = _settings(stage.words[4], stage.words[5:-2]).fingerprint(get_task(path.stem), upstream.key)
    return bool(record.get("fingerprint") == wanted)


@cache
def _settings(tasks: str, words: tuple[str, ...]) -> Settings:
    return Settings.read({**compose("eval", words), "tasks": tasks.split(","), "out": "."})
