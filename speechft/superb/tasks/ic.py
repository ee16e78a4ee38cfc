"""IC: action, object and location of a Fluent Speech Commands utterance (s3prl/downstream/fluent_commands)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from speechft.superb.records import Scores
from speechft.superb.scopes import swapped
from speechft.superb.tasks.utterance import UtteranceTask

if TYPE_CHECKING:
    from torch import Tensor

_TABLES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
_SLOTS = ("action", "object", "location")


class IC(UtteranceTask):
    """One softmax per slot over the same affine output; an utterance is right when all three slots are."""

    name = "ic"
    folder = "fluent_commands"
    needs: ClassVar[Mapping[str, str]] = {
        "fluent_commands": "fluent_speech_commands_dataset with data/ and wavs/speakers/, on request from fluent.ai",
    }
    extra_keys = ("eval_batch_size",)

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        """s3prl dies with a KeyError at a slot value that the training table lacks, at the batch that holds it."""
        del there
        import pandas

        root = self.paths(data, "fluent_commands")[0]
        absent = [f"data/{table}" for table in _TABLES.values() if not (root / "data" / table).is_file()]
        if absent:
            return [f"{root} has no {', '.join(absent)} ({self.needs['fluent_commands']})"]
        problems = []
        known: dict[str, set[Any]] = {}
        for table in _TABLES.values():  # train first: it defines the values
            path = root / "data" / table
            frame = pandas.read_csv(path)
            columns = [column for column in ("path", *_SLOTS) if column not in frame]
            if columns:
                problems.append(f"{path} has no column {', '.join(columns)}")
                continue
            for slot in _SLOTS:
                values = set(frame[slot])
                new = sorted(map(str, values - known.setdefault(slot, values)))
                if new:
                    problems.append(f"{path} has {slot} {', '.join(new)}, which {_TABLES['train']} has not")
            wavs = [name for name in frame["path"] if not (root / str(name)).is_file()]
            if wavs:
                shown = ", ".join(map(str, wavs[:5])) + (" ..." if len(wavs) > 5 else "")
                problems.append(f"{len(wavs)} of the {len(frame)} files of {path} are not under {root} ({shown})")
        return problems

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        del work
        return {
            "datarc": {
                "file_path": str(self.paths(data, "fluent_commands")[0]),
                "num_workers": int(settings["num_workers"]),
                "train_batch_size": int(settings["batch_size"]),
                "eval_batch_size": int(settings["eval_batch_size"]),
            },
            "modelrc": {
                "projector_dim": int(settings["project_dim"]),
                "select": "UtteranceLevel",
                "UtteranceLevel": {"pooling": "MeanPooling"},
            },
        }

    def metrics(self, scores: Scores, split: str) -> dict[str, float]:
        logged = super().metrics(scores, split)
        return {name.removeprefix("intent_"): value for name, value in logged.items()}

    def train_loss(self, expert: Any, features: Tensor, counts: list[int], others: Sequence[Any]) -> Tensor | None:
        """The sum of the slots' losses."""
        import torch

        from speechft.superb.tasks.losses import sent, utterance_logits

        labels = sent(np.stack([np.asarray(label) for label in others[0]]), features.device)
        slots = utterance_logits(expert, features).split(expert.values_per_slot, dim=1)
        return torch.stack([expert.objective(part, labels[:, slot]) for slot, part in enumerate(slots)]).sum()

    def dataset(self, expert: Any, split: str) -> Any:
        return getattr(expert, f"{split}_dataset")

    def files(self, expert: Any, split: str) -> list[Path]:
        dataset = self.dataset(expert, split)
        return [Path(dataset.base_path) / path for path in dataset.df["path"]]

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "fluent_commands")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "whole files"

    @contextlib.contextmanager
    def without_audio(self) -> Iterator[None]:
        import torch
        from s3prl.downstream.fluent_commands import dataset

        silence = torch.zeros(1, 1)
        with swapped(dataset, "torchaudio", SimpleNamespace(load=lambda *_, **__: (silence, 16_000))):
            yield
