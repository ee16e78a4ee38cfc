"""PR: phones of LibriSpeech by CTC (s3prl/downstream/ctc with the corpus `libriphone`)."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from speechft.data.lexicon import read_lexicon
from speechft.errors import SpeechFTError
from speechft.files import write_text
from speechft.superb.readers import libriphone
from speechft.superb.tasks.base import SPLITS, Item, Split, Task, swapped


class PR(Task):
    """Two affine layers on every frame, CTC; the labels end in s3prl's end-of-sentence token."""

    name = "pr"
    folder = "ctc"
    metric = "per"
    higher_better = False
    kind = "frames"
    needs: ClassVar[Mapping[str, str]] = {
        "librispeech": "the folder of LibriSpeech with train-clean-100, dev-clean, test-clean, from openslr.org/12",
        "lexicon": "word to phones: librispeech-lexicon-200k-g2p.txt and -allothers-g2p.txt of s3prl's repository",
    }
    extra_keys = ("bucketing",)

    def missing_inside(self, data: Mapping[str, Any]) -> list[str]:
        root = self.paths(data, "librispeech")[0]
        problems = [
            f"{root / name} does not exist (data.librispeech_{split})"
            for split in SPLITS
            for name in _names(data, split)
            if not (root / name).is_dir()
        ]
        return problems + [f"data.phones={p} does not exist" for p in self.paths(data, "phones") if not p.is_file()]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The vocabulary file that s3prl wants is written to `work`: the user's, or what `vocabulary` says."""
        lexicon = [str(path) for path in self.paths(data, "lexicon")]
        given = self.paths(data, "phones")
        phones = libriphone.read_phones(given[0]) if given else libriphone.vocabulary(read_lexicon(lexicon))
        vocabulary = write_text(work / "phones.txt", "\n".join(phones) + "\n")
        return {
            "corpus": {
                "name": "libriphone",
                "path": str(self.paths(data, "librispeech")[0]),
                "lexicon": lexicon,
                **{split: _names(data, split) for split in SPLITS},
                "bucketing": bool(settings["bucketing"]),
                "batch_size": int(settings["batch_size"]),
                "num_workers": int(settings["num_workers"]),
            },
            "text": {"mode": "word", "vocab_file": str(vocabulary)},
            "model": {"project_dim": int(settings["project_dim"]), "zero_infinity": True, "select": "FrameLevel"},
            "save_best_on": ["dev"],
            "metric_higher_better": False,
            "metric": ["per"],
        }

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """s3prl's wheel was built without downstream/ctc/corpus: our reader stands in its place."""
        del work
        package = types.ModuleType("s3prl.downstream.ctc.corpus")
        package.__path__ = []
        module = types.ModuleType("s3prl.downstream.ctc.corpus.libriphone")
        module.LibriPhoneDataset = libriphone.LibriPhoneDataset  # type: ignore[attr-defined]
        sys.modules.setdefault(package.__name__, package)
        sys.modules.setdefault(module.__name__, module)
        yield

    def before_loader(self, expert: Any, num_workers: int) -> None:
        # load_dataset pops num_workers from the shared dictionary, so from the second loader on it would be 12
        expert.corpus["num_workers"] = num_workers

    def dataset(self, expert: Any, split: str) -> Any:
        return self.loader(expert, split).dataset

    def files(self, expert: Any, split: str) -> list[Path]:
        return [Path(path) for path, _ in self.dataset(expert, split).elements]

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        from s3prl.downstream.ctc.data import collect_audio_batch

        waves, *_ = collect_audio_batch([(item.path, [])], split="dev")
        return np.asarray(waves[0], dtype=np.float32)

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "librispeech")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "whole files"

    def batches(
        self, expert: Any, split: Split, loader: Any
    ) -> Callable[[Sequence[int]], tuple[list[int], list[Sequence[Any]]]]:
        """Halving and order are left to s3prl's `collect_audio_batch`, shown waves of the right length and no size."""
        import torch
        from s3prl.downstream.ctc import data

        dataset = loader.dataset
        samples = {str(item.path): item.samples for item in split.items}
        numbers = {item.path.stem.split(".")[0]: number for number, item in enumerate(split.items)}
        if len(numbers) != len(split.items):
            raise SpeechFTError(f"two utterances of the {split.name} split have the same name", "rename one of them")
        silence = torch.zeros(1)

        def load(path: str) -> tuple[torch.Tensor, int]:
            return silence.expand(samples[str(path)]), 16_000

        def batch(indices: Sequence[int]) -> tuple[list[int], list[Sequence[Any]]]:
            with swapped(data, "torchaudio", SimpleNamespace(load=load)):
                _, *others = loader.collate_fn([dataset[index] for index in indices])
            return [numbers[name] for name in others[-1]], others

        return batch

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Edit distance over phones, as s3prl/downstream/ctc/metric.py counts it."""
        import editdistance

        lines = []
        for name, guess, truth in zip(records["filename"], records["hypothesis"], records["groundtruth"], strict=True):
            reference = truth.split(" ")
            errors = editdistance.eval(guess.split(" "), reference)
            lines.append({"file": str(name), "errors": int(errors), "length": len(reference)})
        return lines


def _names(data: Mapping[str, Any], split: str) -> list[str]:
    default = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}[split]
    value = data.get(f"librispeech_{split}") or default
    return [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
