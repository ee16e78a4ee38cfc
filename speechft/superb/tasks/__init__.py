"""The SUPERB tasks by name. A further one is one file here and one in configs/superb."""

from __future__ import annotations

from importlib import import_module

from speechft.errors import UsageError
from speechft.superb.tasks.base import Task

NAMES: dict[str, str] = {
    "pr": "PR", "asr": "ASR", "ks": "KS", "qbe": "QbE", "sid": "SID", "asv": "ASV", "sd": "SD",
    "ic": "IC", "sf": "SF", "er": "ER", "se": "SE", "ss": "SS",
}  # fmt: skip
"""Task name (and module of this package) -> class: SUPERB's ten, then two of SUPERB-SG."""

UNSUPPORTED: dict[str, str] = {
    "st": "its expert in s3prl is fairseq's translation model, and fairseq does not import on today's Python",
}
"""Tasks of SUPERB-SG that are not here -> why."""


def get_task(name: str) -> Task:
    """The task of a name.

    Raises:
        UsageError: unknown; the message lists the known ones.
    """
    if name not in NAMES:
        raise UsageError(f"unknown SUPERB task {name!r}", f"known: {', '.join(NAMES)}")
    task = getattr(import_module(f"speechft.superb.tasks.{name}"), NAMES[name])()
    assert isinstance(task, Task)
    return task
