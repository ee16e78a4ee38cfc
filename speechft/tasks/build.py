"""From the `task` group of a configuration to a task. A new task is one file and one class, here or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from speechft.errors import UsageError
from speechft.own import own_class
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
        settings: `kind` chooses the class: a name of `KINDS`, or the user's own (docs/own_task.md); the rest goes
            to it.

    Raises:
        UsageError: unknown kind or option; what `own_class` raises.
    """
    options = {key: value for key, value in settings.items() if key not in ("name", "head_lr")}
    kind = str(options.pop("kind", None))
    make: Callable[..., Task] | None
    make = own_class(kind, "task.kind", "task", Task) if ":" in kind else KINDS.get(kind)
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
