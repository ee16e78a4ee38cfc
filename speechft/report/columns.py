"""The columns of a table: SUPERB's tasks and metrics, their order, their titles and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TITLES = {
    "pr.per": "PR, PER % ↓",
    "asr.wer": "ASR, WER % ↓",
    "ks.acc": "KS, accuracy % ↑",
    "ic.acc": "IC, accuracy % ↑",
    "sid.acc": "SID, accuracy % ↑",
    "er.acc": "ER, accuracy % ↑",
    "sf.slot_type_f1": "SF, slot type F1 % ↑",
    "sf.slot_value_cer": "SF, slot value CER % ↓",
    "asv.eer": "ASV, EER % ↓",
    "sd.der": "SD, DER % ↓",
    "qbe.mtwv": "QbE, MTWV × 100 ↑",
}
"""In SUPERB's order (2105.01051, table 2)."""

_SUPERB_SG = {
    "se.pesq": "SE, PESQ × 100 ↑",
    "se.stoi": "SE, STOI % ↑",
    "ss.si_sdri": "SS, SI-SDRi in dB × 100 ↑",
}
"""2203.06849."""

_KNOWN = {**_TITLES, **_SUPERB_SG}

_SEVERAL = {"sf": ("slot_type_f1", "slot_value_cer"), "se": ("pesq", "stoi")}
"""Tasks that report more than their main metric."""

_LOWER_BETTER = ("per", "wer", "cer", "uer", "eer", "der", "loss")


@dataclass(frozen=True)
class Column:
    """One metric of one task.

    Attributes:
        key: `TASK.METRIC`, as in the reference files.
        title: for people, with the arrow of the better direction.
    """

    key: str
    task: str
    metric: str
    higher_better: bool
    title: str


def columns_of(record: Mapping[str, Any]) -> list[Column]:
    """The columns that one `TASK.json` fills; those its `metrics` lack are left out."""
    task, main = str(record["task"]), str(record["metric"])
    names = [main, *(one for one in _SEVERAL.get(task, ()) if one != main)]
    return [
        column(task, name, bool(record["higher_better"]) if name == main else None)
        for name in names
        if name in record["metrics"]
    ]


def column(task: str, metric: str, higher_better: bool | None = None) -> Column:
    """A column by its names; without a direction, error rates go down and everything else up."""
    if higher_better is None:
        higher_better = not metric.endswith(_LOWER_BETTER)
    key = f"{task}.{metric}"
    return Column(key, task, metric, higher_better, title(key, higher_better))


def title(key: str, higher_better: bool = True) -> str:
    """The title of a column, or of a task whose main metric is meant."""
    if "." not in key:
        key = next((known for known in _KNOWN if known.startswith(f"{key}.")), key)
    task, _, metric = key.partition(".")
    return _KNOWN.get(key, f"{task.upper()}, {metric} % {'↑' if higher_better else '↓'}" if metric else task)


def place(key: str) -> tuple[int, str]:
    """For sorting columns: SUPERB's order, then what it does not have by name."""
    known = list(_KNOWN)
    return (known.index(key) if key in known else len(known), key)


def known_keys() -> tuple[str, ...]:
    """Every column of SUPERB's ten tasks."""
    return tuple(_TITLES)
