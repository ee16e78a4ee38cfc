"""Tasks that give one label to an utterance through mean pooling (SID, KS; later IC and ER)."""

from __future__ import annotations

import contextlib
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from speechft.superb.items import Item, Split
from speechft.superb.scopes import python_seed
from speechft.superb.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


class UtteranceTask(Task):
    """The expert's head is linear up to the loss, so it gets each utterance as one pooled frame (kind `pooled`).

    ASV, whose head is not, shares what this reads and draws, with `kind` `frames`.
    """

    kind: Literal["pooled", "frames"] = "pooled"
    metric = "acc"
    higher_better = True

    @abstractmethod
    def dataset(self, expert: Any, split: str) -> Any:
        """The expert's own data set."""

    @abstractmethod
    def without_audio(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the data set reads silence instead of files: for asking it only for labels and names."""

    def draw_seed(self, split: str, item: Item) -> str:
        """Draws differ from one another and are the same in every run."""
        return f"{split}/{'/'.join(item.path.parts[-3:])}/{item.draw}"

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        with python_seed(self.draw_seed(split, item)):
            wave = self.dataset(expert, split)[item.index][0]
        return np.asarray(wave, dtype=np.float32).reshape(-1)

    def batches(
        self, expert: Any, split: Split, loader: Any
    ) -> Callable[[Sequence[int]], tuple[list[int], list[Sequence[Any]]]]:
        dataset = self.dataset(expert, split.name)
        with self.without_audio(), python_seed("labels"):
            known: list[tuple[Any, ...]] = [tuple(dataset[index][1:]) for index in range(len(dataset))]

        def batch(indices: Sequence[int]) -> tuple[list[int], list[Sequence[Any]]]:
            # the item's number travels in the waveform's place through s3prl's own collate
            samples = []
            for index in indices:
                draws = split.draws(index)
                number = split.first[index] + (random.randrange(draws) if draws > 1 else 0)
                samples.append((number, *known[index]))
            numbers, *others = loader.collate_fn(samples)
            return list(numbers), others

        return batch

    def train_loss(self, expert: Any, features: Tensor, counts: list[int], others: Sequence[Any]) -> Tensor | None:
        if self.kind != "pooled":
            return None
        from speechft.superb.tasks.losses import sent, utterance_logits

        loss: Tensor = expert.objective(utterance_logits(expert, features), sent(others[0], features.device))
        return loss

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        names, correct = records["filename"], records["acc"]
        return [{"file": str(name), "correct": int(hit)} for name, hit in zip(names, correct, strict=True)]
