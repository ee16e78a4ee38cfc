"""SID: who of VoxCeleb1's 1 251 speakers speaks (s3prl/downstream/voxceleb1)."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from speechft.superb.scopes import swapped
from speechft.superb.tasks.checks import read_list
from speechft.superb.tasks.voxceleb1 import VoxCeleb1Task


class SID(VoxCeleb1Task):
    """s3prl crops training utterances to 8 s at random; evaluation reads whole utterances, one at a time."""

    name = "sid"
    folder = "voxceleb1"
    needs: ClassVar[Mapping[str, str]] = {
        "voxceleb1": "the folder of VoxCeleb1 with dev/wav/id10001/..., from robots.ox.ac.uk/~vgg/data/voxceleb",
        "iden_split": "VoxCeleb1's iden_split.txt, from robots.ox.ac.uk/~vgg/data/voxceleb/meta",
    }
    extra_keys = ("eval_batch_size", "crop_seconds", "crop_hours")

    def paths(self, data: Mapping[str, Any], key: str) -> list[Path]:
        found = super().paths(data, key)
        if key == "iden_split" and not found:  # many keep it inside the corpus
            found = [root / "iden_split.txt" for root in super().paths(data, "voxceleb1")]
            found = [path for path in found if path.is_file()]
        return found

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        """s3prl dies with an IndexError at the first wav of the list that is not there."""
        if "voxceleb1" not in there:
            return []
        root = self.paths(data, "voxceleb1")[0]
        parts = sorted(path for path in root.glob("*/wav") if path.is_dir())
        if not parts:
            return [f"{root} has no */wav folder ({self.needs['voxceleb1']})"]
        if "iden_split" not in there:
            return []
        listing = self.paths(data, "iden_split")[0]
        lines = read_list(listing, self.needs["iden_split"])
        wrong = [" ".join(line) for line in lines if len(line) != 2 or line[0] not in ("1", "2", "3")]
        if wrong or {line[0] for line in lines} != {"1", "2", "3"}:
            why = f"has a line {wrong[0]!r}" if wrong else "lacks a part of 1 (training), 2 (dev) and 3 (test)"
            return [f"{listing} {why}: a line is PART SPEAKER/VIDEO/FILE.wav ({self.needs['iden_split']})"]
        names = [name for _, name in lines]
        absent = [name for name in names if not any((part / name).is_file() for part in parts)]
        if not absent:
            return []
        shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        return [f"{len(absent)} of the {len(names)} files of {listing} are not under {root}/*/wav ({shown})"]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        del work
        return {
            "datarc": {
                "file_path": str(self.paths(data, "voxceleb1")[0]),
                "meta_data": str(self.paths(data, "iden_split")[0]),
                "num_workers": int(settings["num_workers"]),
                "train_batch_size": int(settings["batch_size"]),
                "eval_batch_size": int(settings["eval_batch_size"]),
                "max_timestep": round(float(settings["crop_seconds"]) * 16_000),
            },
            "modelrc": {
                "projector_dim": int(settings["project_dim"]),
                "select": "UtteranceLevel",
                "UtteranceLevel": {"pooling": "MeanPooling"},
            },
        }

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """s3prl caches file lists beside its own code under names that do not tell corpora apart: a fresh place."""
        del work
        from s3prl.downstream.voxceleb1 import dataset

        with tempfile.TemporaryDirectory() as folder, swapped(dataset, "CACHE_PATH", folder):
            yield

    def reading(self, settings: Mapping[str, Any]) -> str:
        return f"sid: whole files; training crops of {float(settings['crop_seconds'])} s"

    def crop(self, expert: Any, split: str, index: int, samples: int) -> tuple[int, bool]:
        del index
        limit = self.dataset(expert, split).max_timestep
        return (int(limit), True) if limit is not None and samples > limit else (samples, False)

    @contextlib.contextmanager
    def without_audio(self) -> Iterator[None]:
        import torch
        from s3prl.downstream.voxceleb1 import dataset

        silence = torch.zeros(1, 1)
        with swapped(dataset, "torchaudio", SimpleNamespace(load=lambda *_, **__: (silence, 16_000))):
            yield
