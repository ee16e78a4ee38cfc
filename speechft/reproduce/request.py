"""What the user gives: paths of corpora and checkpoints, and overrides that are handed on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from speechft.errors import UsageError
from speechft.reproduce.rows import superb_tasks, upstreams

TRAINING = ("tedlium3", "aishell3")
"""Corpora that are trained on only; the others are SUPERB's, too."""
_PLAIN = re.compile(r"[\w./:@%+~-]+")


@dataclass(frozen=True)
class Request:
    """Where things are, and what is changed.

    Attributes:
        out: the folder of everything that is made.
        data: name -> path, the names of `data` in `configs/eval.yaml` and `TRAINING`.
        upstreams: choice of `configs/upstream` -> a checkpoint to take instead of its published name.
        train, evaluate: overrides of `speechft train` and `speechft eval superb`.
        tasks: of SUPERB.
        scale: of the numbers of steps; 1.0 is the paper's.
    """

    out: Path
    data: Mapping[str, str] = field(default_factory=dict)
    upstreams: Mapping[str, str] = field(default_factory=dict)
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    scale: float = 1.0


def read_request(
    words: Sequence[str], out: Path, tasks: Sequence[str] | None = None, scale: float = 1.0, file: Path | None = None
) -> Request:
    """From words with `=`, and a file that holds the same in sections.

    Args:
        words: `data.tedlium3=/data/TEDLIUM_release-3`, `upstream.hubert_base=hubert.pt`, `train.KEY=VALUE`,
            `eval.KEY=VALUE`.
        out, tasks, scale: see `Request`; no tasks are the table's.
        file: a YAML file `{data: {tedlium3: ...}, upstream: {...}, train: {trainer.precision: bf16}, eval: {...}}`;
            words go before it.

    Raises:
        UsageError: an unknown name; a file that cannot be read so.
    """
    found: dict[str, dict[str, str]] = {"data": {}, "upstream": {}, "train": {}, "eval": {}}
    if file is not None:
        for section, values in _read(file).items():
            if section not in found or not isinstance(values, Mapping):
                raise UsageError(
                    f"{file}: {section!r} is no section", f"known, each of NAME: VALUE: {', '.join(found)}"
                )
            found[section].update({str(key): str(value) for key, value in values.items()})
    for word in words:
        key, _, value = word.partition("=")
        section, _, name = key.lstrip("+").partition(".")
        if section not in found or not name:
            raise UsageError(
                f"{word!r} is none of data.NAME=PATH, upstream.NAME=PATH, train.KEY=VALUE, eval.KEY=VALUE",
                "write for example data.librispeech=/data/LibriSpeech or train.trainer.precision=bf16",
            )
        found[section][("+" * (len(key) - len(key.lstrip("+"))) + name)] = value
    _known("data", found["data"], data_names())
    _known("upstream", found["upstream"], upstreams())
    if not 0 < scale <= 1:
        raise UsageError(f"--scale is {scale:g}", "it is a share of the paper's steps: above 0, at most 1")
    return Request(
        out.expanduser().resolve(), {name: _absolute(path) for name, path in found["data"].items()},
        {name: _absolute(path) for name, path in found["upstream"].items()},
        tuple(f"{key}={value}" for key, value in found["train"].items()),
        tuple(f"{key}={value}" for key, value in found["eval"].items()), tuple(tasks or superb_tasks()), scale,
    )  # fmt: skip


@cache
def data_names() -> list[str]:
    """The names that `data.NAME=` can have."""
    from speechft.superb.settings import compose

    names = compose()["data"]
    return sorted({*TRAINING, *(str(name) for name in names)} - {"synthetic"})


def override(key: str, value: str) -> str:
    """`key=value` for Hydra, quoted where its grammar needs it."""
    if _PLAIN.fullmatch(value) or value.startswith("["):  # a list is written as Hydra has it
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _read(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{file} cannot be read as YAML ({first})", "give a file of sections, see --help") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{file} has no sections", "write data: and below it NAME: PATH")
    return found


def _known(section: str, given: Mapping[str, str], known: Sequence[str]) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise UsageError(f"unknown {section}.{unknown[0]}", f"known: {', '.join(known)}")


def _absolute(path: str) -> str:
    """A path that holds from any folder; a name on the hub, or of a split, stays."""
    where = Path(path).expanduser()
    return str(where.resolve()) if where.exists() or path.startswith((".", "~", "/")) else path
