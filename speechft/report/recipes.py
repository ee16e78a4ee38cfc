"""How a score was made, and in what two scores of one task differ: such scores say nothing about their models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.superb.settings import WITHOUT_EFFECT

_SHOWN = 60  # letters of a value
_CROPPING = ("sid", "ks", "asv")  # tasks that draw parts of files at random: `crops` of others says nothing


OFFICIAL_TEST = {
    "pr": (2620,), "asr": (2620,), "ks": (3081,), "sid": (8251,), "asv": (37720, 37611), "ic": (3793,), "er": (5531,),
}  # fmt: skip
"""How much SUPERB's tasks test on: utterances of test-clean (LibriSpeech's own list), of Speech Commands' v0.01 test
archive, of VoxCeleb1 by iden_split.txt, trials of VoxCeleb1-O (as published, and cleaned), utterances of Fluent Speech
Commands' test_data.csv, and of IEMOCAP's four emotions (five folds together). The other tasks' are not known here."""


def other_corpus(record: Mapping[str, Any]) -> str | None:
    """What a task was scored on in place of SUPERB's corpus: `synthetic demo corpus`, `another corpus (75 ...)`."""
    if record.get("corpus"):
        return f"{record['corpus']} corpus"
    official, found = OFFICIAL_TEST.get(str(record.get("task"))), record.get("test_utterances")
    if official is None or found is None or found in official:
        return None
    what = "trials" if record.get("task") == "asv" else "utterances"
    return f"another test set than SUPERB's: {found} {what}, not {official[0]}"


def recipe(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `TASK.json` must agree for its score to be comparable.

    The learning rate that a search chose is the model's own; the rates that were searched must be the same.
    """
    settings = {
        key: value for key, value in (record.get("settings") or {}).items() if key not in (*WITHOUT_EFFECT, "lr")
    }
    searched = (record.get("settings") or {}).get("lr")
    rates = sorted(float(one) for one in (searched if isinstance(searched, (list, tuple)) else [searched]) if one)
    if len(rates) > 1:
        settings["lr"] = rates
    elif rates or record.get("lr"):
        settings["lr"] = rates[0] if rates else float(record["lr"])
    settings["steps"] = record.get("steps", settings.get("steps"))
    settings["engine"] = record.get("engine")
    settings["precision"] = record.get("precision", "no")
    settings["compile"] = bool(record.get("compile", False))
    settings["frames_dtype"] = record.get("frames_dtype", "float32")
    settings["data"] = record.get("data")
    if "train" in record.get("streamed", ()) and "crops" in settings and record.get("task") in _CROPPING:
        settings["crops"] = "drawn anew"  # docs/superb.md, where the engines can differ
    if record.get("lists"):
        settings["lists"] = record["lists"]
    return settings


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What differs, a phrase each: `lr 0.0001 instead of 0.005`."""
    phrases = []
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if one == other:
            continue
        if key == "lists":
            if one and other:  # older results do not have them
                names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
                phrases.append(f"another {', '.join(names)}")
        elif key == "data":
            phrases.append("other data (files of train, dev or test, or how they are read)")
        else:
            phrases += _phrases(key, one, other)
    return phrases


def off_official(record: Mapping[str, Any]) -> list[str]:
    """In what a score's recipe departs from configs/superb/TASK.yaml, which is SUPERB's. SUPERB lets everyone choose
    the learning rate, and how the features are computed is no part of it."""
    from speechft.config.locate import group_names, read_group
    from speechft.superb.tasks.text import split_names

    task = str(record.get("task"))
    if task not in group_names("superb"):
        return []
    official = read_group("superb", task)
    ours = {**(record.get("settings") or {}), "steps": record.get("steps")}
    keys = [key for key in official if key in ours and key not in (*WITHOUT_EFFECT, "lr", "crops", "crop_hours")]
    phrases = [phrase for key in keys for phrase in _phrases(key, ours[key], official[key])]
    for split, folders in (record.get("splits") or {}).items():
        phrases += _phrases(f"librispeech_{split}", ",".join(folders), ",".join(split_names({}, split)))
    return phrases


def _phrases(key: str, one: Any, other: Any) -> list[str]:
    """`specaug.num_freq_mask 2 instead of 4`; none where they are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        inside = sorted(one.keys() | other.keys())
        return [phrase for name in inside for phrase in _phrases(f"{key}.{name}", one.get(name), other.get(name))]
    return [] if one == other else [f"{key} {_short(one)} instead of {_short(other)}"]


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
