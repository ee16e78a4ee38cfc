"""Corpora that lhotse has a recipe for, from their folder: the manifests are made once and kept in the cache folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.console import say
from speechft.data.readers.base import corpus_folder
from speechft.data.readers.manifests import lhotse
from speechft.errors import SpeechFTError, UsageError
from speechft.files import cache_dir, sha256_json, whole_folder


def recipe(name: str, root: str, split: str | None = None, options: Mapping[str, Any] | None = None,
           prefix: str = "") -> list[Any]:  # fmt: skip
    """What `lhotse.recipes.prepare_NAME(root, ...)` finds, as cuts.

    Args:
        name: such as `ami`, `libritts`, `vctk`: the corpora that `lhotse prepare --help` lists.
        root: the corpus's folder, as the recipe expects it.
        split: the part, as the recipe names it; null where it has none.
        options: more arguments of the recipe.

    Raises:
        UsageError: no such recipe, or one that takes no folder.
        SpeechFTError: the recipe failed, or has no such part.
    """
    import lhotse.recipes as recipes
    from lhotse import __version__ as version

    prepare = getattr(recipes, f"prepare_{name.replace('-', '_')}", None)
    if prepare is None:
        known = sorted(key.removeprefix("prepare_") for key in dir(recipes) if key.startswith("prepare_"))
        raise UsageError(f"lhotse has no recipe {name!r}", f"known: {', '.join(known)}")
    corpus = corpus_folder(root, name, f"see lhotse's recipe {name} for the layout it expects").resolve()
    key = sha256_json({"name": name, "root": str(corpus), "options": dict(options or {}), "lhotse": version})[:12]
    folder = cache_dir() / "manifests" / f"{name}-{key}"
    if not folder.is_dir():
        say(f"lhotse's recipe {name} reads {corpus}; its manifests are kept in {folder}")
        with whole_folder(folder) as partial:
            _prepare(prepare, name, corpus, dict(options or {}), partial)
    parts = sorted(path.name.removesuffix("-recordings.jsonl.gz") for path in folder.glob("*-recordings.jsonl.gz"))
    part = split if split is not None else parts[0] if len(parts) == 1 else None
    if part not in parts:
        raise SpeechFTError(f"lhotse's recipe {name} found no part {split!r}", f"it found: {', '.join(parts)}")
    supervisions = folder / f"{part}-supervisions.jsonl.gz"
    return lhotse(
        str(folder / f"{part}-recordings.jsonl.gz"),
        str(supervisions) if supervisions.is_file() else None,
        prefix=prefix,
    )


def _prepare(prepare: Any, name: str, corpus: Path, options: dict[str, Any], folder: Path) -> None:
    """Run the recipe and write each part as `PART-recordings.jsonl.gz` and `PART-supervisions.jsonl.gz`."""
    import tempfile

    from lhotse import RecordingSet, SupervisionSet

    first = next(iter(inspect.signature(prepare).parameters))
    try:
        with tempfile.TemporaryDirectory(dir=folder) as own:  # some recipes write whether asked or not
            if "output_dir" in inspect.signature(prepare).parameters:
                options.setdefault("output_dir", own)
            made = prepare(**{first: corpus}, **options)
    except Exception as error:  # recipes assert, and fail in ways of their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechFTError(
            f"lhotse's recipe {name} failed on {corpus} ({reason[:200]})", "check the folder"
        ) from error
    for part, sets in _parts(made).items():
        for manifest in sets:  # by what they are: some recipes name them the other way round
            if isinstance(manifest, RecordingSet):
                manifest.to_file(folder / f"{part}-recordings.jsonl.gz")
            elif isinstance(manifest, SupervisionSet):
                manifest.to_file(folder / f"{part}-supervisions.jsonl.gz")


def _parts(made: Any) -> dict[str, list[Any]]:
    """A recipe's answer, nested as it may be, flat: `train`, `en/train` -> `en-train` ..."""
    if not isinstance(made, Mapping):
        return {}
    if any(not isinstance(value, Mapping) for value in made.values()):
        return {"all": list(made.values())}
    flat: dict[str, list[Any]] = {}
    for key, value in made.items():
        for below, sets in _parts(value).items():
            flat[str(key) if below == "all" else f"{key}-{below}"] = sets
    return flat
