"""From the words of a command line to one resolved configuration (Hydra composes, nothing changes directory)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.config.locate import config_dir, group_names, read_group
from speechft.config.paths import resolved
from speechft.errors import SpeechFTError, UsageError

IDENTITY_FREE = ("runs", "trainer.device", "trainer.log_every", "trainer.keep", "trainer.keep_best",
                 "trainer.keep_cnn_gb", "trainer.threads", "trainer.eval_seconds", "data.workers", "trainer.trackers",
                 "trainer.gradient_checkpointing", "trainer.checkpoint_every", "allow_changed_config",
                 "paper")  # fmt: skip
"""Keys, and sections of keys, that do not change what a run learns but by rounding, so a resumed run may differ in
them. `trainer.keep_cnn` is not among them: turned on or off it rounds every batch differently."""


_NAMED = 4
"""Choices that a hint lists."""
_FREE_SECTIONS = tuple(f"{key}." for key in IDENTITY_FREE)


def compose(primary: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `configs/PRIMARY.yaml` with overrides, everything resolved; of stage 1, paths too (`paths.resolved`).

    Raises:
        UsageError: an unknown key, group or choice, or a malformed override.
    """
    found = _composed(primary, overrides, None)
    return resolved(found) if primary == "train" else found


def compose_section(primary: str, overrides: Sequence[str], section: str) -> dict[str, Any]:
    """One section of `compose`, where values may still be missing in others.

    Raises:
        UsageError: as `compose`.
    """
    return _composed(primary, overrides, section)


def _composed(primary: str, overrides: Sequence[str], section: str | None) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if any(word.lstrip("+").startswith("hydra.run.dir=") for word in overrides):  # Hydra would drop it without a word
        where = "--out OUT" if primary == "train" else "out=OUT"
        raise UsageError("hydra.run.dir names no folder here", f"{where} does")
    try:
        if GlobalHydra.instance().is_initialized():  # inside a sweep: Hydra itself is running
            GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra_compose(primary, overrides=spelled_out(primary, overrides))
        chosen = config if section is None else config[section]
        if missing := _missing(OmegaConf.to_container(chosen, resolve=False), section or ""):
            raise _valueless(missing)
        container = OmegaConf.to_container(chosen, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last: a group without a choice
        raise _explained(primary, error, overrides) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def spelled_out(primary: str, overrides: Sequence[str]) -> list[str]:
    """`upstream=/a/path` and `upstream=ORGANISATION/MODEL` of stage 1 in Hydra's words; later words still count."""
    words: list[str] = []
    for word in overrides:
        key, _, value = word.partition("=")
        if primary != "train" or key != "upstream" or not value or value in group_names("upstream"):
            words.append(word)
            continue
        path = Path(value).expanduser()
        there = path.exists() or (value.startswith(("/", "./", "../", "~")) and "," not in value)
        if not there and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            words.append(word)
            continue
        named = [name for name in group_names("upstream") if read_group("upstream", name).get("source") == value]
        source = str(path.resolve()) if there else value
        quoted = "'" + source.replace("\\", "\\\\").replace("'", "\\'") + "'"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name) or "upstream"
        words += (
            [f"upstream={named[0]}"]
            if named and not there
            else ["upstream=_checkpoint", f"upstream.name={name}", f"upstream.source={quoted}"]
        )
    return words


def _missing(value: Any, key: str) -> list[str]:
    """The keys that are `???`; not what is interpolated from them."""
    if isinstance(value, dict):
        return [one for name, inner in value.items() for one in _missing(inner, f"{key}.{name}" if key else str(name))]
    return [key] if value == "???" else []


def _folders(group: str) -> list[str]:
    """The folders of choices in a Hydra group, such as `paper` of `experiment`."""
    return sorted(path.name for path in (config_dir() / group).glob("*") if path.is_dir())


_EXAMPLES = {"task.tasks": "'task.tasks={pr: {}, sid: {share: 2}}'"}
"""Of keys without a value whose form cannot be guessed."""


def _valueless(keys: Sequence[str]) -> UsageError:
    """All at once: of an experiment with several paths the first would not tell of the others."""
    have, them = ("has", "it") if len(keys) == 1 else ("have", "them")
    named = " and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]]))
    forms = (_EXAMPLES.get(key, f"{key}=...") for key in keys)
    return UsageError(f"{named} {have} no value", f"give {them}: {' '.join(forms)}")


def _explained(primary: str, error: Exception, overrides: Sequence[str]) -> UsageError:
    """Hydra's many-lined errors as what is wrong and what would be right."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if found := re.search(r"Could not find '([\w-]+)/([^']+)'", text):
        group, name = found.groups()
        names = group_names(group)
        folders = _folders(group)
        inner = [f"{folder}/{one}" for folder in folders for one in group_names(f"{group}/{folder}")]
        meant = "".join(f"did you mean {one}? " for one in difflib.get_close_matches(name, [*names, *inner], 1))
        more = "".join(f", {folder}/..." for folder in folders)
        return UsageError(f"unknown {group} {name!r}", f"{meant}known: {', '.join(names)}{more}")
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        known = _keys(primary)
        if key in known and key.partition(".")[0] in _defaults(primary):
            return _of_another_choice(primary, key, overrides)
        if primary == "eval" and key in _keys("train"):
            return UsageError(
                f"{key!r} is a key of speechft train",
                "SUPERB's tasks read the official layouts: data.KEY=PATH, docs/superb.md",
            )
        close = difflib.get_close_matches(key, known, 3, 0.6)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        added = "--out OUT names the run's folder" if key == "out" else f"{hint}+{key}=... would add a key"
        return UsageError(f"unknown key {key!r}", added)
    if found := re.search(r"full_key: ([\w.]+)", text):
        return _valueless([found.group(1)])
    if found := re.search(r"Ambiguous value for argument '([^=']+)=([^']*)'", text):
        key, value = found.groups()
        swept = "; -m makes a run of each" if primary == "train" else ""
        return UsageError(f"{key}={value} is several values", f"a list has brackets: {key}=[{value}]{swept}")
    if "Config group override must be a string" in text:
        return UsageError("a group is given no choice (GROUP=null)", "leave the word out, or name one of configs/GROUP")
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return UsageError(f"the configuration cannot be composed: {first}", "see configs/ for the keys and choices")


def _unreadable(word: str) -> UsageError:
    """A word that Hydra's grammar has no reading of: mostly a path with letters that it wants quoted."""
    key, separator, value = word.partition("=")
    if not separator:
        return UsageError(f"{word!r} is no override", "write KEY=VALUE, and put a word with spaces or braces in quotes")
    if value[:1] in "[{('\"" or "'" in value:
        return UsageError(
            f"{word!r} cannot be read", "check its brackets and quotes, and quote the whole word for the shell"
        )
    return UsageError(f"{word!r} cannot be read", f"a value with such characters is quoted twice: \"{key}='{value}'\"")


def _of_another_choice(primary: str, key: str, overrides: Sequence[str]) -> UsageError:
    """A key that other choices of its group have: `data.table` without `data=tsv`."""
    from omegaconf import OmegaConf

    group, _, inner = key.partition(".")
    files = {name: OmegaConf.load(config_dir() / group / f"{name}.yaml") for name in group_names(group)}
    having = [f"{group}={name}" for name, file in files.items() if inner.partition(".")[0] in set(file)]
    words = [word.partition("=") for word in overrides]
    said = [value for name, _, value in words if name.lstrip("+") == group]
    chosen = said[-1] if said else _defaults(primary)[group]
    several = " or ".join(having[:_NAMED]) + (" ..." if len(having) > _NAMED else "")
    hint = (
        f"+{key}=... hands it to your class"
        if chosen == "own"
        else f"add {several}, which {'have' if len(having) > 1 else 'has'} it"
    )
    return UsageError(f"{group}={chosen} has no {inner!r}", hint)


def _defaults(primary: str) -> dict[str, str]:
    """The groups of a configuration, and their choices unless others are made."""
    from omegaconf import OmegaConf

    loaded: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{primary}.yaml"), resolve=False)
    entries = [entry for entry in loaded["defaults"] if isinstance(entry, dict)]
    return {
        str(group): str(choice)
        for entry in entries for group, choice in entry.items()
        if "@" not in group and "override" not in group
    }  # fmt: skip


def keys_called(primary: str, word: str) -> list[str]:
    """The keys that end in a word, the least nested ones of them: `steps` -> `trainer.steps`."""
    found = [key for key in _keys(primary) if key.rpartition(".")[2] == word]
    return [key for key in found if key.count(".") == min(one.count(".") for one in found)]


def _keys(primary: str) -> list[str]:
    """All keys, those of choices that are not the default too, and the groups."""
    from omegaconf import OmegaConf

    plain = _plain(primary)
    groups = list(_defaults(primary))
    files = [(group, config_dir() / group / f"{choice}.yaml") for group in groups for choice in group_names(group)]
    others = [f"{group}.{key!s}" for group, file in files if file.is_file() for key in OmegaConf.load(file)]
    return list(dict.fromkeys([*plain, *groups, *others, *flatten(plain)]))


def _plain(primary: str) -> dict[str, Any]:
    """The configuration without any override, for its keys; values that must be given stay `???`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        container = OmegaConf.to_container(hydra_compose(primary), resolve=False)
    return {str(key): value for key, value in container.items()} if isinstance(container, dict) else {}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: `{"trainer": {"lr": 1}}` -> `{"trainer.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a changed configuration changes: `trainer.lr: 0.0001 -> 0.001`; keys that do not matter are passed over."""
    before, after = flatten(old), flatten(new)
    changed = []
    for key in sorted(before.keys() | after.keys()):
        if key.startswith(_FREE_SECTIONS) or key in IDENTITY_FREE:
            continue
        if before.get(key) != after.get(key):
            changed.append(f"{key}: {before.get(key)} -> {after.get(key)}")
    return changed


def write_config(path: Any, config: Mapping[str, Any]) -> None:
    """Write a configuration as YAML, whole."""
    from omegaconf import OmegaConf

    from speechft.files import write_text

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def read_config(path: Any) -> dict[str, Any]:
    """Read a configuration that `write_config` wrote.

    Raises:
        SpeechFTError: the file is damaged.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        container = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        if not isinstance(container, dict):
            raise YAMLError("no mapping")
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise SpeechFTError(f"{path} is damaged", "bring it back from a copy, or begin anew elsewhere") from error
    return {str(key): value for key, value in container.items()}
