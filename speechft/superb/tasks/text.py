"""Tasks that write down what is said, by CTC on every frame (PR, SF, ASR)."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from speechft.errors import SpeechFTError
from speechft.superb.items import SPLITS, Split
from speechft.superb.readers import libriphone
from speechft.superb.tasks.base import Task
from speechft.superb.tasks.checks import absent_of, whole_numbers


class TextTask(Task):
    """Whole files, every frame. Files are listed by path, so that PR and ASR share the stored frames of LibriSpeech.

    Attributes:
        corpus: the key of `data` that names the corpus's folder.
    """

    kind = "frames"
    corpus: ClassVar[str]

    @abstractmethod
    def without_audio(self, samples: Mapping[str, int]) -> contextlib.AbstractContextManager[None]:
        """Inside, s3prl reads silence instead of files.

        Args:
            samples: path -> length in samples; s3prl orders and halves batches by it.
        """

    def dataset(self, expert: Any, split: str) -> Any:
        return self.loader(expert, split).dataset

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, self.corpus)[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "whole files"

    def batches(
        self, expert: Any, split: Split, loader: Any
    ) -> Callable[[Sequence[int]], tuple[list[int], list[Sequence[Any]]]]:
        """Order and halving of a batch are left to s3prl, shown waves of the right length and no size."""
        dataset = loader.dataset
        samples = {str(item.path): item.samples for item in split.items}
        numbers = {item.path.stem.split(".")[0]: number for number, item in enumerate(split.items)}
        if len(numbers) != len(split.items):
            raise SpeechFTError(f"two utterances of the {split.name} split have the same name", "rename one of them")

        def batch(indices: Sequence[int]) -> tuple[list[int], list[Sequence[Any]]]:
            with self.without_audio(samples):
                _, *others = loader.collate_fn([dataset[index] for index in indices])
            return [numbers[name] for name in others[-1]], others

        return batch


def recurrent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """s3prl's arguments for ASR's and SF's layers (`RNNs` in s3prl/downstream/asr/model.py)."""
    dims = whole_numbers("rnn_dims", settings["rnn_dims"], 1, several=True)
    layers = len(dims)
    return {
        "total_rate": -1,
        "module": "LSTM",
        "bidirection": True,
        "dim": dims,
        "dropout": [float(settings["dropout"])] * layers,
        "layer_norm": [False] * layers,
        "proj": [False] * layers,
        "sample_rate": [1] * layers,
        "sample_style": "concat",
    }


# ------------------------------------------------------------------------------------ LibriSpeech, for PR and ASR

LIBRISPEECH = "the folder of LibriSpeech with train-clean-100, dev-clean, test-clean, from openslr.org/12"


def split_names(data: Mapping[str, Any], split: str) -> list[str]:
    """The folders of LibriSpeech that make up a split (`data.librispeech_SPLIT`, a name or a list)."""
    default = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}[split]
    value = data.get(f"librispeech_{split}") or default
    return [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def missing_splits(data: Mapping[str, Any], root: Path) -> list[str]:
    """The folders that are not there, and the audio that their transcripts name and they lack, a phrase each."""
    problems = []
    for split in SPLITS:
        for folder in (root / name for name in split_names(data, split)):
            names = {name: audio for _, name, audio, _ in libriphone.listed(folder)} if folder.is_dir() else {}
            if not folder.is_dir():
                problems.append(f"{folder} does not exist (data.librispeech_{split})")
            elif not names:
                problems.append(f"{folder} holds no *.trans.txt with sentences (data.librispeech_{split})")
            problems += absent_of([name for name, audio in names.items() if audio is None], len(names), str(folder))
    return problems
