"""What of a plan is done already: by the same settings, and from the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from speechft.config.compose import compose, differences, read_config
from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.reproduce.plan import Stage
from speechft.superb.settings import WITHOUT_EFFECT


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
    if not path.is_file() or not _older(stage.needs, (path,)):
        return False
    try:
        record = read_json(path)
    except SpeechFTError:
        return False
    wanted = _evaluation(stage.words[5:-2])
    recipe = wanted["superb"][path.stem]
    same = all(str(record.get(key)) == str(wanted[key]) for key in ("engine", "seed", "compile"))
    return same and _plain(record.get("settings") or {}) == _plain(recipe)


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without what does not matter, its rates as a list."""
    found = {key: value for key, value in recipe.items() if key not in WITHOUT_EFFECT}
    if "lr" in found:
        rates = found["lr"] if isinstance(found["lr"], list) else [found["lr"]]
        found["lr"] = [float(rate) for rate in rates]
    return found


@cache
def _evaluation(words: tuple[str, ...]) -> dict[str, Any]:
    """`configs/eval.yaml` with overrides; rates and crops for all tasks are in each task's recipe."""
    settings = compose("eval", words)
    for recipe in settings["superb"].values():
        for key in ("lr", "crops"):
            if settings[key] is not None and key in recipe:
                recipe[key] = settings[key]
    return settings
