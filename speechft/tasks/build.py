"""From the `task` group of a configuration to a task. A new task is one file, one class and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from speechft.errors import UsageError
from speechft.tasks.base import Task
from speechft.tasks.ctc import CtcTask
from speechft.tasks.masked_prediction import MaskedPrediction

KINDS: dict[str, Callable[..., Task]] = {"ctc": CtcTask, "masked_prediction": MaskedPrediction}


def build_task(settings: Mapping[str, Any]) -> Task:
    """Build a task from its options (`kind` chooses the class; `name` and `head_lr` belong to others).

    Raises:
        UsageError: unknown kind or option.
    """
    options = {key: value for key, value in settings.items() if key not in ("name", "head_lr")}
    kind = options.pop("kind", None)
    if kind not in KINDS:
        raise UsageError(f"unknown kind of task {kind!r}", f"known: {', '.join(sorted(KINDS))}")
    lexicon = options.get("lexicon")
    if isinstance(lexicon, Mapping):  # {synthetic: demo, seed: 0}: the synthetic corpus's own
        from speechft.data.synthetic.corpus import make_corpus

        options["lexicon"] = str(make_corpus(str(lexicon["synthetic"]), int(lexicon.get("seed", 0))).lexicon)
    try:
        return KINDS[kind](**options)
    except TypeError as error:
        raise UsageError(f"task {kind}: {error}", "check the task section of the configuration") from error
