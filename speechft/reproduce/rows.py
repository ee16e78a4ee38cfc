"""The rows of `rows.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechft.errors import UsageError

_FILE = Path(__file__).parent / "rows.yaml"


@dataclass(frozen=True)
class Row:
    """One model of the paper.

    Attributes:
        name: `hubert-asr`.
        upstream: its choice of `configs/upstream`.
        scenario: whose report it stands in: `asr`.
        experiment: of `configs/experiment`; None where runs of other rows are merged.
        merged: names of the rows whose runs are merged.
        alphas: weights of the fine-tuned side; none: θ' itself is scored.
        about: in words.
    """

    name: str
    upstream: str
    scenario: str
    experiment: str | None
    merged: tuple[str, ...]
    alphas: tuple[float, ...]
    about: str


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    from omegaconf import OmegaConf

    table = OmegaConf.to_container(OmegaConf.load(_FILE))
    assert isinstance(table, dict)
    return {str(key): value for key, value in table.items()}


def rows() -> dict[str, Row]:
    """All rows that can be made, by name, in the table's order."""
    table = _table()
    found = {}
    for short, upstream in table["upstreams"].items():
        for key, entry in table["rows"].items():
            name = f"{short}-{key}"
            if name not in table["impossible"]:
                found[name] = Row(
                    name, upstream, key.partition("-")[0], entry.get("experiment"),
                    tuple(f"{short}-{part}" for part in entry.get("merge", ())),
                    tuple(float(alpha) for alpha in entry.get("alphas", ())), f"{upstream}, {entry['about']}",
                )  # fmt: skip
    return found


def upstreams() -> list[str]:
    """The choices of `configs/upstream` that rows have."""
    return list(_table()["upstreams"].values())


def superb_tasks() -> list[str]:
    """The SUPERB tasks that rows are scored on."""
    return list(_table()["tasks"])


def rates() -> dict[str, list[str]]:
    """Learning rates of heads that are searched unless told otherwise: SUPERB's task -> rates, as they are written."""
    return {str(task): [f"{rate:g}" for rate in found] for task, found in _table()["rates"].items()}


def scoring() -> dict[str, str]:
    """In what scores differ from the published ones: what -> how, and why."""
    return dict(_table()["scoring"])


def chosen(names: Sequence[str]) -> list[Row]:
    """Rows by name, each once.

    Raises:
        UsageError: an unknown one, or one that cannot be.
    """
    known, impossible = rows(), _table()["impossible"]
    for name in names:
        if name in impossible:
            raise UsageError(f"there is no row {name}: {impossible[name]}", "choose another upstream")
        if name not in known:
            raise UsageError(f"unknown row {name!r}", "scripts/reproduce --list names them all")
    return [known[name] for name in dict.fromkeys(names)]
