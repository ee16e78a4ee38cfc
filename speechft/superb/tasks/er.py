"""ER: neutral, happy, sad or angry in IEMOCAP, five folds (s3prl/downstream/emotion)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from speechft.errors import UsageError
from speechft.superb.items import Item
from speechft.superb.readers import iemocap
from speechft.superb.scopes import swapped
from speechft.superb.tasks.base import Task
from speechft.superb.tasks.checks import number, whole_numbers
from speechft.superb.tasks.utterance import UtteranceTask


class ER(UtteranceTask):
    """Each fold is trained and scored alone, the score is their mean; the dev set is a fifth of the training sessions.

    s3prl's expert seeds torch with 0 for drawing the dev set, before it makes the head: the evaluation's seed is
    felt from the first dev evaluation on only.

    Args:
        fold: the session that is tested.
    """

    name = "er"
    folder = "emotion"
    needs: ClassVar[Mapping[str, str]] = {
        "iemocap": "IEMOCAP_full_release with Session1 ... Session5, on request from sail.usc.edu/iemocap",
    }
    optional = ("iemocap_meta",)
    extra_keys = ("eval_batch_size", "valid_ratio", "folds")
    one_store = True

    def __init__(self, fold: int = 1) -> None:
        self.fold = fold

    def variants(self, settings: Mapping[str, Any]) -> Sequence[str]:
        return [f"fold{fold}" for fold in _folds(settings)]

    def variant(self, name: str) -> Task:
        return ER(int(name.removeprefix("fold")))

    def check(self, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().check(data, settings)
        folds = _folds(settings)
        if len(set(folds)) != len(folds) or not set(folds) <= set(iemocap.SESSIONS):
            raise UsageError(f"superb.er.folds={settings['folds']} is not possible", "each of 1 to 5 at most once")
        if not 0 < number("superb.er.valid_ratio", settings["valid_ratio"]) < 1:
            raise UsageError(f"superb.er.valid_ratio={settings['valid_ratio']} is not between 0 and 1", "0.2 is usual")

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        del there
        meta = self.paths(data, "iemocap_meta")
        root = self.paths(data, "iemocap")[0]
        return iemocap.missing(root, meta[0] if meta else None, iemocap.SESSIONS, self.needs["iemocap"])

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The fold's meta data are written to `work`, unless the user gives them."""
        root, given = self.paths(data, "iemocap")[0], self.paths(data, "iemocap_meta")
        meta = given[0] if given else work / "meta_data"
        if not given:
            iemocap.write_fold(root, self.fold, meta)
        return {
            "datarc": {
                "root": str(root),
                "meta_data": str(meta),
                "test_fold": f"fold{self.fold}",
                # the official True only reads every file into memory before the first step
                "pre_load": False,
                "train_batch_size": int(settings["batch_size"]),
                "eval_batch_size": int(settings["eval_batch_size"]),
                "num_workers": int(settings["num_workers"]),
                "valid_ratio": float(settings["valid_ratio"]),
            },
            "modelrc": {
                "projector_dim": int(settings["project_dim"]),
                "select": "UtteranceLevel",
                "UtteranceLevel": {"pooling": "MeanPooling"},
            },
        }

    def dataset(self, expert: Any, split: str) -> Any:
        return getattr(expert, f"{split}_dataset")

    def files(self, expert: Any, split: str) -> list[Path]:
        dataset = self.dataset(expert, split)
        # train and dev are random parts of one data set
        whole, indices = (dataset, range(len(dataset))) if split == "test" else (dataset.dataset, dataset.indices)
        return [Path(whole.data_dir) / whole.meta_data[index]["path"] for index in indices]

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        """By path: the features of all five sessions are stored together, whatever a fold does with them."""
        del split
        wave = expert.test_dataset._load_wav(str(item.path))
        return np.asarray(wave, dtype=np.float32).reshape(-1)

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "iemocap")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "whole files"

    @contextlib.contextmanager
    def without_audio(self) -> Iterator[None]:
        import torch
        from s3prl.downstream.emotion import dataset

        silence = torch.zeros(1, 16)
        with swapped(dataset, "torchaudio", SimpleNamespace(load=lambda *_, **__: (silence, 16_000))):
            yield


def _folds(settings: Mapping[str, Any]) -> list[int]:
    return whole_numbers("superb.er.folds", settings["folds"], 1, several=True)
