"""Paths of a configuration made absolute, so that what a run keeps holds from any folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATHS = {"root", "table", "dev_table", "iden_split", "recordings", "supervisions", "cuts", "dev_recordings",
          "dev_supervisions", "dev_cuts", "reader", "teacher", "voices", "speech"}  # fmt: skip
_OF_TABLES = {"path", "audio"}  # elsewhere `audio` may be a column


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A composed `configs/train.yaml` whose corpora and upstream are named by absolute paths.

    Only what is there is changed: everything else may be a name (of a split, a set on the hub), or a mistake that is
    told as it was typed.
    """
    changed = dict(config)
    if isinstance(data := config.get("data"), Mapping):
        tables = any(data.get(key) is not None for key in ("table", "recordings", "cuts"))
        changed["data"] = _inside(data, _PATHS | ({"audio"} if tables else set()))
        for name in ("train", "dev"):
            if isinstance(entries := data.get(name), list):
                changed["data"][name] = [_entry(one) for one in entries]
    if isinstance(upstream := config.get("upstream"), Mapping):
        from speechft.config.locate import group_names

        known = upstream.get("source") in group_names("upstream")
        changed["upstream"] = _inside(upstream, _own(upstream) | (set() if known else {"source"}))
    if isinstance(task := config.get("task"), Mapping):
        lexicon = set() if task.get("lexicon") == "synthetic" else {"lexicon"}
        changed["task"] = _inside(task, _own(task) | lexicon)
        if isinstance(books := task.get("codebooks"), list):  # of masked prediction; `own` is the upstream itself
            changed["task"]["codebooks"] = [
                _inside(one, {"path"} | ({"upstream"} if "/" in str(one.get("upstream")) else set()))
                if isinstance(one, Mapping) else one
                for one in books
            ]  # fmt: skip
    return changed


def _own(values: Mapping[str, Any]) -> set[str]:
    return {"kind"} if ".py:" in str(values.get("kind")) else set()


def _entry(entry: Any) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    return _inside(entry, _PATHS | _own(entry) | (_OF_TABLES if entry.get("kind") in ("tsv", "lhotse") else set()))


def _inside(values: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: _absolute(value) if key in keys else value for key, value in values.items()}


def _absolute(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    file, colon, name = value.rpartition(":") if ".py:" in value else (value, "", "")  # path/to/file.py:function
    if not Path(file).expanduser().exists():
        return value
    return f"{Path(file).expanduser().resolve()}{colon}{name}"
