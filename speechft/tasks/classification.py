"""One answer for an utterance, by mean pooling: SID, KS, IC, ER."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from speechft.data.audio import SAMPLE_RATE
from speechft.data.loader import Batch
from speechft.errors import SpeechFTError, UsageError
from speechft.files import write_json
from speechft.tasks.base import Task, label_of, refuse
from speechft.tasks.heads import MeanPoolingHead
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet

_SHORTEST = 400  # samples: less gives a 50 Hz upstream no frame of its own


class Classification(Task):
    """A class for an utterance, or one for each of several labels (the slots of an intent).

    The loss is the cross-entropy, summed over labels as in SUPERB's IC (s3prl/downstream/fluent_commands/expert.py).

    Args:
        labels: fields of the cuts (`base.label_of`): `speaker`, `keyword`, `emotion`, or several, such as
            `[action, object, location]`. The classes are those that occur in the training set.
        hidden: see `heads.MeanPoolingHead`.
        crop_seconds: in training, a piece of this length from a random place of each longer utterance (SUPERB's SID:
            8 s); null hears all.
        balanced: weigh classes by how rare they are (SUPERB's KS draws rare classes more often, to the same end).
    """

    metric, higher_is_better = "accuracy", True

    def __init__(self, labels: str | Sequence[str], hidden: int = 256, crop_seconds: float | None = None,
                 balanced: bool = False) -> None:  # fmt: skip
        super().__init__()
        self._fields = [labels] if isinstance(labels, str) else [str(label) for label in labels]
        if not self._fields or len(set(self._fields)) != len(self._fields):
            raise UsageError(f"task.labels is {labels!r}", "give a field of the cuts, or several different ones")
        if crop_seconds is not None and not crop_seconds * SAMPLE_RATE >= _SHORTEST:
            raise UsageError(f"task.crop_seconds is {crop_seconds}", "give a length in seconds, or null")
        self.name = "+".join(self._fields)
        self._hidden, self._balanced = hidden, balanced
        self._crop = None if crop_seconds is None else round(crop_seconds * SAMPLE_RATE)
        self.classes: dict[str, list[str]] = {}
        self._index: list[dict[str, int]] = []

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        rows = [self.label(cut) for cut in train]
        refuse(self._lacking(rows, dev or []))
        for place, field in enumerate(self._fields):
            counts = Counter(row[place] for row in rows)
            self.classes[field] = sorted(counts)
            rarity = torch.tensor([len(rows) / len(counts) / counts[name] for name in self.classes[field]])
            self.register_buffer(f"_weight_{place}", rarity, persistent=False)
        self._index = [{name: number for number, name in enumerate(self.classes[field])} for field in self._fields]
        self._sizes = [len(index) for index in self._index]
        self.head = MeanPoolingHead(upstream.dim, self._hidden, sum(self._sizes))

    def keep(self, folder: Path) -> None:
        write_json(folder / "classes.json", self.settings())

    def check_splits(self, train: Sequence[Any], dev: Sequence[Any]) -> list[tuple[str, str, str]]:
        """Utterances of dev whose class the training set lacks.

        Raises:
            SpeechFTError: all of train have the same class.
        """
        return self._lacking([self.label(cut) for cut in train], dev)

    def _lacking(self, rows: Sequence[list[str]], dev: Iterable[Any]) -> list[tuple[str, str, str]]:
        known = [{row[place] for row in rows} for place in range(len(self._fields))]
        for field, classes in zip(self._fields, known, strict=True):
            if len(classes) < 2:
                raise SpeechFTError(
                    f"every utterance of the training set has the {field} {next(iter(classes), None)!r}",
                    "a classifier needs at least two classes: check data.train",
                )
        return [
            (cut.id, f"the {field} {value!r} of dev utterance {cut.id} never occurs in the training set", _mend(field))
            for cut in dev
            for field, classes, value in zip(self._fields, known, self.label(cut), strict=True)
            if value not in classes
        ]

    def describe(self, cuts: Sequence[Any]) -> list[str]:
        """The classes of each field, and how many utterances the smallest and the largest have."""
        lines = []
        for place, field in enumerate(self._fields):
            counts = Counter(self.label(cut)[place] for cut in cuts)
            few, many = min(counts.values()), max(counts.values())
            spread = f"{few}" if few == many else f"{few} to {many}"
            lines.append(f"{field}: {len(counts)} classes of {spread} utterance{'' if many == 1 else 's'}")
        return lines

    def label(self, cut: Any) -> list[str]:
        """The classes of a cut, one for each field.

        Raises:
            SpeechFTError: one is missing.
        """
        return [label_of(cut, field) for field in self._fields]

    def _answers(self, upstream: Upstream, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """For each field logits `[batch, classes]`; the right classes `[batch, fields]`."""
        waves = self._cropped(batch.waves) if self.training and self._crop else batch.waves
        hidden = upstream(waves, last_only=True)
        logits = self.head(hidden.last, hidden.frames).float()
        right = [[index[name] for index, name in zip(self._index, self.label(cut), strict=True)] for cut in batch.cuts]
        return list(logits.split(self._sizes, dim=1)), torch.tensor(right, device=logits.device)

    def _cropped(self, waves: list[Tensor]) -> list[Tensor]:
        assert self._crop is not None
        starts = [int(torch.randint(max(0, len(wave) - self._crop) + 1, ())) for wave in waves]
        # a wave that is short enough stays the tensor it is: its kept CNN output is found by that
        return [
            wave if len(wave) <= self._crop else wave[start : start + self._crop]
            for wave, start in zip(waves, starts, strict=True)
        ]

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits, right = self._answers(upstream, batch)
        losses = [
            functional.cross_entropy(part, right[:, place], self._weights(place)) for place, part in enumerate(logits)
        ]
        hits = _all_right(logits, right)
        return torch.stack(losses).sum(), {"accuracy": 100 * sum(hits) / len(hits)}

    def _weights(self, place: int) -> Tensor | None:
        return self.get_buffer(f"_weight_{place}") if self._balanced else None

    def score(self, upstream: Upstream, batch: Batch) -> list[list[bool]]:
        """For each utterance, which of its labels are right."""
        logits, right = self._answers(upstream, batch)
        columns = [part.argmax(1) == right[:, place] for place, part in enumerate(logits)]
        return torch.stack(columns, dim=1).tolist()

    def summary(self, scores: Sequence[Sequence[bool]]) -> dict[str, float]:
        """`accuracy`: all labels of an utterance right, in percent; of several labels, each one's own too."""
        found = {"accuracy": 100 * sum(map(all, scores)) / len(scores)}
        if len(self._fields) > 1:
            for place, field in enumerate(self._fields):
                found[f"{field}_accuracy"] = 100 * sum(row[place] for row in scores) / len(scores)
        return found

    def settings(self) -> dict[str, Any]:
        return {"classes": self.classes}


def _mend(field: str) -> str:
    if field == "speaker":
        return "split by utterances, not by speakers (a table: data.split_by=utterances), or do without: data.dev=null"
    return "take a dev set with the training set's classes, or none: data.dev=null"


def _all_right(logits: Sequence[Tensor], right: Tensor) -> list[bool]:
    best = torch.stack([part.detach().argmax(1) for part in logits], dim=1)
    return (best == right).all(1).tolist()
