"""Which models a command line stands for, and which one they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechft.checkpoints.convention import settled
from speechft.config.compose import read_config
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json
from speechft.merge.record import read_record, variant
from speechft.runs import Run, find_run, is_run, runs_root
from speechft.superb.sources import model_name


@dataclass(frozen=True)
class Model:
    """A model to look at.

    Attributes:
        name: as in tables; the same as `eval superb` gives its results.
        settings: what `load_upstream` takes.
        series: what models of one run share, for curves over α.
        strategy: of the run; None where that is not known.
        alpha: weight of the fine-tuned side; 1 for a fine-tuned model, None where one number does not say it.
        method: how it was merged; None where it was not.
        origin: what it was fine-tuned from, as settings; None where that is not known.
        place: the folder that the models of a series are in; empty where it is alone.
    """

    name: str
    settings: Mapping[str, Any]
    series: str
    strategy: str | None = None
    alpha: float | None = None
    method: str | None = None
    origin: Mapping[str, Any] | None = None
    place: str = ""

    @property
    def source(self) -> str:
        return str(self.settings["source"])


@dataclass(frozen=True)
class Chosen:
    """The models, what they are compared with, and where results belong."""

    base: Model
    models: list[Model]
    home: Path


def choose(words: Sequence[str | Path] = (), base: str | Path | None = None) -> Chosen:
    """Find the models.

    A run stands for its fine-tuned and all its merged models. Without `base`, all are compared with the upstream that
    those of them were fine-tuned from which say it; where none does, with the first.

    Args:
        words: runs, folders, names, hub names; none is the latest run.
        base: what to compare with.

    Raises:
        UsageError: nothing to compare with, or models of different origin.
        SpeechFTError: an unfinished run.
    """
    paths = [Path(word).expanduser() for word in words] or [find_run(None).folder]
    found: list[Model] = []
    for word, path in zip([str(one) for one in words] or [""], paths, strict=True):
        found += _of_run(Run(path.resolve())) if is_run(path) else [_of_word(word, path)]
    models = _distinct(list({model.source: model for model in found}.values()))
    home = paths[0].resolve() / "analysis" if is_run(paths[0]) else runs_root() / "analysis"
    if base is not None:
        return Chosen(_of_word(str(base), Path(base).expanduser()), models, home)
    origins = {str(model.origin.get("sha256") or model.origin["source"]): model for model in models if model.origin}
    if len(origins) > 1:
        names = ", ".join(f"{model.name} from {_origin(model).name}" for model in origins.values())
        raise UsageError(f"the models were fine-tuned from different upstreams ({names})", "choose one with --base")
    if origins:
        origin = _origin(next(iter(origins.values())))
        return Chosen(origin, [model for model in models if model.source != origin.source], home)
    if len(models) < 2:
        raise UsageError(
            f"{models[0].name} does not say what it was fine-tuned from", "name the pre-trained model before it"
        )
    return Chosen(models[0], models[1:], home)


def _distinct(models: Sequence[Model]) -> list[Model]:
    """Runs in two places may be called the same (a sweep's `0`): no two models share a name, no two runs a series."""
    names: dict[str, str] = {}
    series: dict[str, list[str]] = {}
    result = []
    for model in models:
        name = model.name  # told apart as `eval superb` does
        if names.setdefault(name, model.source) != model.source:
            name = f"{name}-{sha256_json(model.source)[:8]}"
        places = series.setdefault(model.series, [])
        place = model.place or model.source
        if place not in places:
            places.append(place)
        number = places.index(place) + 1
        label = model.series if number == 1 else f"{model.series} ({number})"
        result.append(replace(model, name=name, series=label))
    return result


def _of_run(run: Run) -> list[Model]:
    folders = [*run.merged_models(), *([run.finetuned] if run.finished else [])]
    if not folders:
        raise SpeechFTError(f"{run.folder} is not finished", "run its train command again; it goes on where it stopped")
    models = [_of_folder(folder) for folder in folders]
    return sorted(models, key=lambda model: (model.alpha is None, model.alpha or 0.0, model.name))


def _of_word(word: str, path: Path) -> Model:
    if (path / "config.json").is_file():
        return _of_folder(path.resolve())
    if is_run(path):
        raise UsageError(f"{word} is a run, not one model", f"give a model in it, such as {path / 'finetuned'}")
    if path.is_dir():
        raise UsageError(f"{word} is neither a model's folder nor a run", "give a folder with config.json, or a run")
    from speechft.upstreams.load import conventions, locate

    settings = conventions(word)
    settings["source"] = settings.get("source") or word
    locate(str(settings["source"]))  # a mistyped name shows now
    if settings.get("random_seed") is not None:
        raise UsageError(f"{word} has no weights of its own", "choose a pre-trained upstream")
    return Model(model_name(word), settings, model_name(word))


def _of_folder(folder: Path) -> Model:
    """A model's folder; beside it, or in its run, may stand what made it."""
    settings = {"name": model_name(folder), "source": str(folder)}
    owner = folder.parent if folder.name == "finetuned" else folder.parent.parent
    run = Run(owner) if is_run(owner) and (folder == owner / "finetuned" or folder.parent.name == "merged") else None
    record = read_record(folder)
    alpha = record.get("alpha")
    alpha = float(alpha) if isinstance(alpha, (int, float)) else 1.0 if folder.name == "finetuned" else None
    method = str(record["method"]) if record.get("method") else None
    if run is not None:
        strategy = _strategy(run)
        name = run.folder.name
        series = name if strategy is None or strategy in name else f"{name} ({strategy})"
        series += f", {variant(record)}".removesuffix(", ")
        place = str(run.folder)
        return Model(str(settings["name"]), settings, series, strategy, alpha, method, _pretrained(run), place)
    origin = None
    base = next((one for one in record.get("parents", ()) if one.get("role") == "pretrained"), None)
    if base is not None:
        # the merged folder says how its parents hear; the file of a published base model says otherwise
        said = settled(read_json(folder / "config.json"), read_json(folder / "preprocessor_config.json"))
        heard = said.get("do_normalize")
        origin = {"name": model_name(base["path"]), "source": str(base["path"]), "sha256": base.get("sha256"),
                  **({} if heard is None else {"normalize": bool(heard)})}  # fmt: skip
    series = folder.parent.name if record else str(settings["name"])
    place = str(folder.parent) if record else ""
    return Model(str(settings["name"]), settings, series, None, alpha, method, origin, place)


def _strategy(run: Run) -> str | None:
    try:
        return str(read_config(run.config)["strategy"]["name"])
    except Exception:  # written by hand, or by another version
        return None


def _pretrained(run: Run) -> dict[str, Any] | None:
    record = read_json(run.pretrained)
    if record.get("random_seed") is not None:
        return None
    keys = ("name", "source", "normalize", "padding", "sha256")
    return {key: record[key] for key in keys if record.get(key) is not None}


def _origin(model: Model) -> Model:
    assert model.origin is not None
    settings = {key: value for key, value in model.origin.items() if key != "sha256"}
    name = model_name(settings["name"])  # of a folder, its last part
    return Model(name, settings, name)
