"""Which upstreams an argument of `speechft eval superb` stands for, and the folder their results go to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.config.locate import group_names
from speechft.errors import SpeechFTError
from speechft.files import sha256_json
from speechft.runs import Run, find_run, runs_in, runs_root

if TYPE_CHECKING:
    from speechft.upstreams.base import Upstream


def expand(source: Any) -> list[Any]:
    """A run stands for its merged models (or, unmerged, for its fine-tuned one); everything else for itself.

    Raises:
        SpeechFTError: a folder that holds no model.
    """
    if not isinstance(source, (str, Path)):
        return [source]
    folder = Path(source).expanduser()
    if not folder.exists() and folder.absolute() == runs_root() / "latest":
        find_run(None)  # which says that there is none
    if not folder.is_dir() or (folder / "config.json").is_file():
        return [str(source)]
    merged = Run(folder.resolve()).merged_models()
    if merged:
        return [str(path) for path in merged]
    if (folder / "finetuned" / "config.json").is_file():
        return [str(folder / "finetuned")]
    raise SpeechFTError(
        f"{folder} holds no model (no config.json, merged/ or finetuned/)",
        runs_in(folder) or "give a model's folder or a run",
    )


def check_source(source: Any) -> None:
    """Whether an upstream can be found, without loading it.

    Raises:
        UsageError: neither a known name nor a folder.
    """
    if isinstance(source, (str, Path)) and str(source) not in group_names("upstream"):
        from speechft.upstreams.load import locate

        locate(str(source))


def model_name(source: Any) -> str:
    """A name for results: `hubert_base`, `facebook--hubert-base-ls960`, `myrun-alpha-0.25`.

    Args:
        source: a known name, a hub name, a folder, or a loaded upstream.
    """
    identity = getattr(source, "identity", None)
    text = str(identity.name if identity is not None else source)
    path = Path(text).expanduser()
    if path.exists():
        path = path.resolve()
        if path.parent.name == "merged":
            text = f"{path.parent.parent.name}-{path.name}"
        elif path.name == "finetuned":
            text = f"{path.parent.name}-finetuned"
        else:
            text = path.name
    return safe(text)


def safe(text: str) -> str:
    """A file name anywhere: letters, digits, dot, minus, underscore; a slash becomes two minus signs."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("/", "--")).strip("-.")
    return name or "model"


def named(sources: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Expand and name; two different sources never share a name, and one that is spelled in two ways is one. A mapping
    brings its own names."""
    if isinstance(sources, Mapping):
        return [(safe(name), source) for name, source in sources.items()]
    result: dict[str, tuple[str, Any]] = {}
    for source in (one for given in sources for one in expand(given)):
        name, place = model_name(source), _place(source)
        if any(name == other and place != before for before, (other, _) in result.items()):
            name = f"{name}-{sha256_json(str(source))[:8]}"
        result.setdefault(place, (name, source))
    return list(result.values())


def _place(source: Any) -> str:
    """The same for all spellings of a path."""
    path = Path(str(source)).expanduser() if isinstance(source, (str, Path)) else None
    known = path is not None and path.exists() and str(source) not in group_names("upstream")
    return str(path.resolve()) if path is not None and known else str(source)


def loaded(sources: Sequence[tuple[str, Any]], conventions: Mapping[str, Any]) -> Iterator[tuple[str, Upstream]]:
    """The upstreams with their names, one after the other; `conventions` as `Settings.upstream`."""
    from speechft.upstreams import load

    for name, source in sources:  # one at a time in memory
        if isinstance(source, (str, Path)):
            yield name, load.load_upstream({**load.conventions(source), **conventions})
        else:
            yield name, source


COMPANY_BYTES = 4 << 30
"""The most that the weights of upstreams held in memory for one another may take."""


def in_company(
    models: Iterable[tuple[str, Upstream]], wanted: bool = True, most: int = COMPANY_BYTES
) -> Iterator[tuple[str, Upstream, list[tuple[str, Upstream]]]]:
    """Each model with those after it that may be heard in the same pass: neighbours with hidden states of one shape.

    Args:
        models: names and upstreams; no more are loaded than are held.
        wanted: False holds one at a time.
        most: bytes that the weights of those held may take (`company_bytes`).
    """
    group: list[tuple[str, Upstream]] = []
    ordered = iter(models)
    while True:
        try:
            name, upstream = next(ordered)
        except StopIteration:
            break
        except Exception:  # those before it are scored first
            yield from _each(group)
            raise
        full = sum(_bytes(one) for _, one in group) + _bytes(upstream) > most
        if group and (full or _shape(group[0][1]) != _shape(upstream)):
            yield from _each(group)
        group.append((name, upstream))
        if not wanted:
            yield from _each(group)
    yield from _each(group)


def company_bytes(device: str) -> int:
    """How much the weights of upstreams held together may take: an eighth of a GPU's memory, 4 GB at most."""
    if not device.startswith("cuda"):
        return COMPANY_BYTES
    import torch

    return min(COMPANY_BYTES, torch.cuda.get_device_properties(device).total_memory // 8)


def _each(group: list[tuple[str, Upstream]]) -> Iterator[tuple[str, Upstream, list[tuple[str, Upstream]]]]:
    while group:  # who has been scored is let go
        name, upstream = group.pop(0)
        yield name, upstream, list(group)


def _shape(upstream: Upstream) -> tuple[int, int, int]:
    return upstream.num_layers, upstream.dim, upstream.hop


def _bytes(upstream: Upstream) -> int:
    return sum(parameter.nbytes for parameter in upstream.parameters())
