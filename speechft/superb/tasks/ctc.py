"""What PR and SF share: s3prl/downstream/ctc, whose corpora its wheel lacks."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from speechft.superb.items import Item
from speechft.superb.readers import libriphone, snips
from speechft.superb.scopes import swapped
from speechft.superb.tasks.text import TextTask

if TYPE_CHECKING:
    from torch import Tensor


class CTCTask(TextTask):
    """Labels end in s3prl's end-of-sentence token; a training batch is a bucket of labels of similar length."""

    folder = "ctc"

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """s3prl's wheel was built without downstream/ctc/corpus: our readers stand in its place."""
        del work
        package = types.ModuleType("s3prl.downstream.ctc.corpus")
        package.__path__ = []
        sys.modules.setdefault(package.__name__, package)
        for name, reader in (("libriphone", libriphone.LibriPhoneDataset), ("snips", snips.SnipsDataset)):
            module = types.ModuleType(f"{package.__name__}.{name}")
            setattr(module, reader.__name__, reader)
            sys.modules.setdefault(module.__name__, module)
        yield

    def before_loader(self, expert: Any, num_workers: int) -> None:
        # load_dataset pops num_workers from the shared dictionary, so from the second loader on it would be 12
        expert.corpus["num_workers"] = num_workers

    def train_loss(self, expert: Any, features: Tensor, counts: list[int], others: Sequence[Any]) -> Tensor | None:
        from speechft.superb.tasks.losses import ctc_loss

        return ctc_loss(expert, features, counts, others[0], expert.tokenizer.pad_idx)

    def files(self, expert: Any, split: str) -> list[Path]:
        return sorted(Path(path) for path, _ in self.dataset(expert, split).elements)

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        from s3prl.downstream.ctc.data import collect_audio_batch

        waves, *_ = collect_audio_batch([(item.path, [])], split="dev")
        return np.asarray(waves[0], dtype=np.float32)

    @contextlib.contextmanager
    def without_audio(self, samples: Mapping[str, int]) -> Iterator[None]:
        import torch
        from s3prl.downstream.ctc import data

        silence = torch.zeros(1)

        def load(path: str) -> tuple[torch.Tensor, int]:
            return silence.expand(samples[str(path)]), 16_000

        with swapped(data, "torchaudio", SimpleNamespace(load=load)):
            yield
