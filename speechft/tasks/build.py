"""From the `task` group of a configuration to a task. A new task is one file and one class, here or the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from speechft.errors import UsageError
from speechft.tasks.base import Task
from speechft.tasks.classification import Classification
from speechft.tasks.ctc import CtcTask
from speechft.tasks.joint import Joint
from speechft.tasks.masked_prediction import MaskedPrediction
from speechft.tasks.slots import SlotFilling
from speechft.tasks.spin import Spin

KINDS: dict[str, Callable[..., Task]] = {
    "ctc": CtcTask, "classification": Classification, "slots": SlotFilling, "masked_prediction": MaskedPrediction,
    "spin": Spin, "joint": Joint,
}  # fmt: skip


def build_task(settings: Mapping[str, Any]) -> Task:
    """Build a task from its options (`name` and `head_lr` belong to others).

    Args:
        settings: `kind` chooses the class: a name of `KINDS`, or the user's own (see `own_task`); the rest goes to it.

    Raises:
        UsageError: unknown kind or option.
    """
    options = {key: value for key, value in settings.items() if key not in ("name", "head_lr")}
    kind = str(options.pop("kind", None))
    make = own_task(kind) if ":" in kind else KINDS.get(kind)
    if make is None:
        known = ", ".join(sorted(KINDS))
        raise UsageError(f"unknown kind of task {kind!r}", f"known: {known}, or your own: path/to/file.py:ClassName")
    lexicon = options.get("lexicon")
    if isinstance(lexicon, Mapping):  # {synthetic: demo, seed: 0}: the synthetic corpus's own
        from speechft.data.synthetic.corpus import make_corpus

        options["lexicon"] = str(make_corpus(str(lexicon["synthetic"]), int(lexicon.get("seed", 0))).lexicon)
    try:
        task = make(**options)
    except TypeError as error:
        raise UsageError(f"task {kind}: {error}", "check the task section of the configuration") from error
    for attribute in ("name", "metric"):
        if not hasattr(task, attribute):
            raise UsageError(f"task {kind} has no {attribute}", "see speechft.tasks.base.Task for each")
    return task


def own_task(where: str) -> type[Task]:
    """The user's own task.

    Args:
        where: `path/to/file.py:ClassName`, or `package.module:ClassName` of something that Python can import.

    Raises:
        UsageError: no such file, module or class; it does not load; it is no task, or lacks something.
    """
    source, _, name = where.rpartition(":")
    path = Path(source).expanduser()
    try:
        module = _from_file(path) if path.suffix == ".py" else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UsageError(f"task.kind: {source} does not load ({type(error).__name__}: {error})",
                         "give path/to/file.py:ClassName, or package.module:ClassName") from error  # fmt: skip
    found = getattr(module, name, None)
    if not inspect.isclass(found) or not issubclass(found, Task):
        classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Task)]
        tasks = [value.__name__ for value in classes if value.__module__ == module.__name__]
        raise UsageError(f"task.kind: {source} has no task {name!r} (a class made from speechft.tasks.base.Task)",
                         f"its tasks: {', '.join(tasks) or 'none'}")  # fmt: skip
    missing = sorted(found.__abstractmethods__)
    if missing:
        raise UsageError(f"task.kind: {name} lacks {', '.join(missing)}", "see speechft.tasks.base.Task for each")
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
