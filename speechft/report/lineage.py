"""Where a scored model comes from: its α, its parents, its run, found by the hash of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json, sha256_json
from speechft.runs import Run, is_run


@dataclass(frozen=True)
class Lineage:
    """What is known of a model that stage 1 or 2 made.

    Attributes:
        alpha: weight of the fine-tuned side; 1 for a fine-tuned model that was not merged.
        pretrained: sha256 of the weights it started from.
        family: what seeds of one experiment share: the same for models that differ by the training's seed alone.
        run: the run's name, or the folder's that the merged models are in.
    """

    alpha: float
    pretrained: str
    family: str
    run: str


class Lineages:
    """Looks models up by their weights; folders are read as results name them, so moved results lose only their α."""

    def __init__(self) -> None:
        self._known: dict[str, Lineage] = {}
        self._seen: set[Path] = set()
        self.pretrained: dict[str, str] = {}
        """sha256 of every pre-trained upstream -> its name."""

    def of(self, identity: Mapping[str, Any]) -> Lineage | None:
        """The lineage of a result's `upstream`."""
        source, weights = Path(str(identity.get("source") or "")).expanduser(), str(identity.get("sha256"))
        if source.is_absolute():  # hub names are none
            self.look_at(source)
            owner = source.resolve().parent
            base = str(_readable(owner / "pretrained.json").get("sha256") or "")
            if weights not in self._known and source.name == "finetuned" and base:  # fine-tuned, never merged
                self._keep(weights, Lineage(1.0, base, sha256_json([base, "linear", _recipe(owner)]), owner.name))
        return self._known.get(weights)

    def look_at(self, folder: Path) -> None:
        """Learn from a run, a merged model or a fine-tuned one; anything else teaches nothing."""
        folder = folder.resolve()
        if folder in self._seen:
            return
        self._seen.add(folder)
        if is_run(folder):
            self._look_at_run(folder)
        elif (folder / "merge.json").is_file():
            owner = folder.parent.parent
            if folder.parent.name == "merged" and is_run(owner):
                self.look_at(owner)
            self._look_at_merged(folder, owner if is_run(owner) else None)
        elif folder.name == "finetuned" and is_run(folder.parent):
            self.look_at(folder.parent)

    def _look_at_run(self, folder: Path) -> None:
        record = _readable(folder / "pretrained.json")
        if record.get("sha256"):
            self.pretrained.setdefault(str(record["sha256"]), str(record.get("name") or record.get("source")))
        for merged in sorted((folder / "merged").glob("*/merge.json")):
            self._look_at_merged(merged.parent, folder)
        self._look_at_choice(folder, str(record.get("sha256") or ""))

    def _look_at_choice(self, run: Path, base: str) -> None:
        """The models that `merge --alpha auto` scored and did not keep."""
        for choice in map(_readable, sorted((run / "merged").glob("choice*.json"))):
            merge = choice.get("merge") or {}
            family = sha256_json([base, merge.get("method"), _recipe(run), *_variant(merge)])
            for one in choice.get("candidates") or ():
                self._keep(str(one.get("sha256")), Lineage(float(one["alpha"]), base, family, run.name))

    def _look_at_merged(self, folder: Path, run: Path | None) -> None:
        record = _readable(folder / "merge.json")
        parents = [one for one in record.get("parents", ()) if isinstance(one, Mapping)]
        base = [str(one.get("sha256")) for one in parents if one.get("role") == "pretrained"]
        tuned = [one for one in parents if one.get("role") == "finetuned"]
        if not base or not tuned or not isinstance(record.get("alpha"), (int, float)):
            return
        self.pretrained.setdefault(base[0], Path(str(parents[0].get("path"))).name)
        name = (run or folder.parent).name
        recipe = _recipe(run) or [one.get("sha256") for one in tuned]
        family = sha256_json([base[0], record.get("method"), recipe, *_variant(record)])
        self._keep(str(record.get("sha256")), Lineage(float(record["alpha"]), base[0], family, name))
        if len(tuned) == 1:
            plain = sha256_json([base[0], "linear", recipe])  # alone at α = 1 it is what linear merging gives
            self._keep(str(tuned[0].get("sha256")), Lineage(1.0, base[0], plain, name))

    def _keep(self, weights: str, lineage: Lineage) -> None:
        # also of a model that others were fine-tuned from in turn, whichever of their runs is looked at first
        if weights != lineage.pretrained and lineage.alpha != 0.0:
            self._known.setdefault(weights, lineage)


def _readable(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing: a damaged note about a model is no reason to leave its scores out."""
    try:
        record = read_json(path)
    except (SpeechFTError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


def _variant(record: Mapping[str, Any]) -> list[Any]:
    """What a merge differs in from others of its method, but for α and a seed; nothing for the plain one."""
    parameters = {key: value for key, value in (record.get("parameters") or {}).items() if key != "seed"}
    return [one for one in (parameters, record.get("choices")) if one]


_WITHOUT_EFFECT = {
    "": ("seed", "name", "allow_changed_config"),
    "data": ("workers",),
    "trainer": ("device", "threads", "log_every", "checkpoint_every", "keep", "trackers", "keep_cnn", "keep_cnn_gb",
                "gradient_checkpointing"),
}  # fmt: skip
"""By section: what two runs of one recipe may differ in."""


def _recipe(run: Path | None) -> dict[str, Any] | None:
    """A run's configuration without its seed, and without what says only how it is computed; None where there is none
    to read."""
    if run is None:
        return None
    from speechft.config.compose import read_config

    try:
        config = _without(read_config(Run(run).config), "")
        return {key: _without(value, key) if isinstance(value, Mapping) else value for key, value in config.items()}
    except Exception:  # written by hand, or by another version
        return None


def _without(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in _WITHOUT_EFFECT.get(name, ())}
