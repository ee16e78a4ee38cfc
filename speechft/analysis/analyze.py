"""`speechft analyze`: how far models moved from the one they started from, in their weights and in their features."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.analysis.audio import DEFAULT_AUDIO, LONGEST, AudioSet, audio_set
from speechft.analysis.learned import learned_weights
from speechft.analysis.models import Model, choose
from speechft.checkpoints.stream import FolderReader
from speechft.console import progress, say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import cache_dir, read_json, sha256_json, write_json
from speechft.runs import runs_root
from speechft.versions import versions

if TYPE_CHECKING:
    from speechft.upstreams.base import Upstream

_VERSION = 1
"""Goes up whenever the same models and audio would give other figures; older ones are then computed again."""
_MEMORY = 4 << 30
"""Bytes that models heard in one pass, with their sums, may take beside the base."""
_FRAMES_A_DIMENSION = 10


@dataclass
class _Loaded:
    """A model with the hash and the size of its weights."""

    model: Model
    reader: FolderReader
    sha256: str
    bytes: int

    @property
    def key(self) -> list[Any]:
        """What its features depend on."""
        heard = {key: self.model.settings[key] for key in ("normalize", "padding") if key in self.model.settings}
        return [self.sha256, self.reader.config, self.reader.preprocessor, heard]


def analyze(
    words: Sequence[str | Path] = (),
    base: str | Path | None = None,
    audio: str | Path | None = DEFAULT_AUDIO,
    utterances: int | None = None,
    out: str | Path | None = None,
    plots: Sequence[str] = ("png",),
    device: str = "auto",
    batch_seconds: float | None = None,
) -> dict[str, Any]:
    """Compare models with the one they started from, and write `analysis.json` and the plots.

    Every comparison is kept in the cache, under the hashes of both models and of the audio: an interrupted command goes
    on, and a model that was added costs only itself.

    Args:
        words, base: see `models.choose`.
        audio, utterances: see `audio.audio_set`; without audio (None) only the weights are looked at.
        out: where to write; None is `analysis/` in the first run, or `analysis` among the runs.
        plots: formats, of `png`, `pdf`, `svg`.
        device: `auto`, `cpu`, `cuda`.
        batch_seconds: padded seconds of audio heard at once.

    Returns:
        What `analysis.json` holds.

    Raises:
        UsageError: models or audio that are not there, nothing to compare with, batches of no length.
        SpeechFTError: models that do not fit together, features that are not finite, a full disk.
    """
    from speechft.superb.settings import resolve_device

    if batch_seconds is not None and not (batch_seconds > 0 and math.isfinite(batch_seconds)):
        raise UsageError(f"batches of {batch_seconds:g} seconds", "give --batch-seconds a number above 0, such as 60")
    began = time.monotonic()
    place = resolve_device(device)
    chosen = choose(words, base)
    heard = None if audio is None else audio_set(audio, utterances)
    origin = _loaded(chosen.base)
    others = [_loaded(model) for model in chosen.models]
    say(f"compared with {chosen.base.name}: {', '.join(model.name for model in chosen.models)}")
    updates = [_update(origin, other) for other in others]
    features = _features(origin, others, heard, place, batch_seconds) if heard is not None else []
    identities = [one["identities"] for one in features]
    models = []
    for number, (other, update) in enumerate(zip(others, updates, strict=True)):
        own: dict[str, Any] = {**_described(other), "update": update}
        if features:
            layers = features[number]["layers"]
            own |= {"sha256": identities[number][1]["sha256"], "normalize": identities[number][1]["normalize"],
                    "similarity": summary(layers), "layers": layers}  # fmt: skip
        models.append(own)
    first = _described(origin)
    if features:
        first |= {"sha256": identities[0][0]["sha256"], "normalize": identities[0][0]["normalize"]}
    folders = [runs_root() / "superb", *_results(chosen.models)]
    result: dict[str, Any] = {
        "base": first,
        "audio": None if heard is None else {
            "source": heard.source, "utterances": heard.utterances, "seconds": round(heard.seconds, 2),
            "frames": features[0]["layers"][0]["frames"], "dim": features[0]["dim"], "sha256": heard.sha256,
            "left_out": len(heard.left_out),
        },
        "models": models,
        "layer_weights": learned_weights(folders, {one["sha256"]: one["name"] for one in [first, *models]}),
        "notes": [],
        "versions": versions(),
        "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    result["notes"] = _notes(first, models, result["audio"])
    folder = Path(out).expanduser().resolve() if out else chosen.home
    from speechft.analysis.plots import draw

    result["plots"] = draw(result, folder, plots)
    result["folder"] = str(folder)
    write_json(folder / "analysis.json", result)
    return result


def _loaded(model: Model) -> _Loaded:
    from speechft.checkpoints.convert import as_folder
    from speechft.upstreams.load import locate

    reader = FolderReader(as_folder(locate(model.source)))
    size = sum(math.prod(reader.info(name).shape) * 4 for name in reader.names())
    return _Loaded(model, reader, reader.sha256(), size)


def _described(one: _Loaded) -> dict[str, Any]:
    model = one.model
    return {
        "name": model.name, "source": model.source, "sha256": one.sha256, "series": model.series,
        "strategy": model.strategy, "alpha": model.alpha, "method": model.method,
        "family": one.reader.config.get("model_type"),
    }  # fmt: skip


def _update(origin: _Loaded, other: _Loaded) -> dict[str, Any]:
    from speechft.analysis.updates import update_norms

    file = _cached("update", [origin.sha256, other.sha256])
    known = _read(file)
    if known is None:
        known = update_norms(origin.reader, other.reader)
        write_json(file, known)
    return known


def _features(
    origin: _Loaded, others: Sequence[_Loaded], heard: AudioSet, device: str, batch_seconds: float | None
) -> list[dict[str, Any]]:
    """`layers` and `identities` (the base's and the model's) of each; what is in the cache is not heard again."""
    from speechft.analysis.similarity import BATCH_SECONDS, layer_similarities
    from speechft.upstreams.load import load_upstream

    files = [_cached("features", [origin.key, other.key, heard.sha256]) for other in others]
    results = [_read(file) for file in files]
    missing = [number for number, known in enumerate(results) if known is None]
    if not missing:
        return [one for one in results if one is not None]
    base = load_upstream(origin.model.settings)
    at_once = _at_once(others, base, batch_seconds or BATCH_SECONDS)
    for start in range(0, len(missing), at_once):
        numbers = missing[start : start + at_once]
        loaded = [load_upstream(others[number].model.settings) for number in numbers]
        title = f"hearing {heard.seconds:.0f} s of {heard.source}"
        with progress(title, round(heard.seconds)) as advance:
            found = layer_similarities(
                base, loaded, heard.waves(), batch_seconds or BATCH_SECONDS, device,
                lambda seconds: advance(round(seconds), ""),
            )  # fmt: skip
        for number, upstream, layers in zip(numbers, loaded, found, strict=True):
            results[number] = {
                "layers": layers, "dim": base.dim,
                "identities": [base.identity.as_dict(), upstream.identity.as_dict()],
            }  # fmt: skip
            write_json(files[number], results[number])
    return [one for one in results if one is not None]


def _at_once(others: Sequence[_Loaded], base: Upstream, batch_seconds: float) -> int:
    """How many models fit into memory beside the base: their weights, sums and hidden states of a batch."""
    sums = 2 * base.num_layers * base.dim * base.dim * 8
    states = base.num_layers * base.dim * 4 * base.frame_rate * max(batch_seconds, LONGEST)
    return max(1, int(_MEMORY // (max(other.bytes for other in others) + sums + states)))


def summary(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over hidden states of each measure, and the hidden state whose CKA is lowest."""
    means = {}
    for key in ("cka", "cosine", "relative_l2"):
        values = [float(one[key]) for one in layers if one[key] is not None]
        means[key] = sum(values) / len(values) if values else None
    known = [one for one in layers if one["cka"] is not None]
    lowest = min(known, key=lambda one: float(one["cka"]), default=None)
    return {**means, "lowest": None if lowest is None else {"layer": lowest["layer"], "cka": lowest["cka"]}}


def _results(models: Sequence[Model]) -> list[Path]:
    """The `superb/` folders of the runs that the models are from."""
    folders = []
    for model in models:
        path = Path(model.source)
        run = path.parent if path.name == "finetuned" else path.parent.parent
        folders.append(run / "superb")
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _notes(base: Mapping[str, Any], models: Sequence[Mapping[str, Any]], audio: Mapping[str, Any] | None) -> list[str]:
    notes = [
        f"{model['name']} hears its input {'normalised' if model['normalize'] else 'as it is'}, {base['name']} does "
        "not: the difference is in the similarities too"
        for model in models
        if "normalize" in model and model["normalize"] != base["normalize"]
    ]
    notes += [f"the weights of {model['name']} are those of {base['name']}" for model in models
              if model["update"]["norm"] == 0]  # fmt: skip
    if audio is not None and audio["left_out"]:
        notes.append(f"{audio['left_out']} utterances of {audio['source']} could not be heard and are left out")
    if audio is not None and audio["frames"] < _FRAMES_A_DIMENSION * audio["dim"]:
        notes.append(
            f"{audio['frames']} frames are few for {audio['dim']} dimensions: CKA comes out too high (unrelated "
            f"features could have up to {audio['dim'] / (audio['dim'] + audio['frames']):.2f}); give more audio"
        )
    return notes


def _cached(kind: str, key: Any) -> Path:
    return cache_dir() / "analysis" / f"{kind}-{sha256_json([_VERSION, key])[:32]}.json"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        known = read_json(file)
    except SpeechFTError:
        return None  # not there, or damaged: computed again
    return known if isinstance(known, dict) else None
