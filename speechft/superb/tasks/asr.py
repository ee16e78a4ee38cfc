"""ASR: LibriSpeech by CTC on characters, without a language model (s3prl/downstream/asr)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from speechft.superb.items import SPLITS, Item
from speechft.superb.readers import asr
from speechft.superb.readers.libriphone import find_utterances
from speechft.superb.scopes import swapped
from speechft.superb.tasks.text import LIBRISPEECH, TextTask, missing_splits, recurrent, split_names

if TYPE_CHECKING:
    from torch import Tensor

_EXPERT_SPLITS = {"train": "train", "dev": "dev-clean", "test": "test-clean"}


class ASR(TextTask):
    """An affine layer and bidirectional LSTMs. Batches are fixed lists of utterances of similar length.

    s3prl halves every full training batch with an utterance longer than 2000, which its authors meant in frames but
    measure in samples: all of them. It keeps no best state before the dev WER is below 100 %.
    """

    name = "asr"
    folder = "asr"
    metric = "wer"
    higher_better = False
    percent = ("wer", "uer")
    corpus = "librispeech"
    needs: ClassVar[Mapping[str, str]] = {"librispeech": LIBRISPEECH}
    extra_keys = ("rnn_dims", "dropout", "specaug")

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        del there
        return missing_splits(data, self.root(data, "train"))

    def expert_split(self, split: str) -> str:
        """The expert keeps the best state of nothing but `dev-clean`, whatever folders are behind it."""
        return _EXPERT_SPLITS[split]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The dictionary and the lists of lengths that s3prl wants are written to `work`."""
        root = self.root(data, "train")
        names = {split: split_names(data, split) for split in SPLITS}
        lengths, sentences = work / "len_for_bucket", []
        for name in dict.fromkeys(name for several in names.values() for name in several):
            utterances = find_utterances(root, [name])
            asr.write_lengths(lengths, root, name, [path for path, _ in utterances])
            sentences += [sentence for _, sentence in utterances]
        return {
            "datarc": {
                **{_EXPERT_SPLITS[split]: folders for split, folders in names.items()},
                "libri_root": str(root),
                "bucket_file": str(lengths),
                "dict_path": str(asr.write_dictionary(work / "char.dict", asr.vocabulary(sentences))),
                "num_workers": int(settings["num_workers"]),
                "batch_size": int(settings["batch_size"]),
                "eval_batch_size": 1,
                "zero_infinity": True,
                "decoder_args": {"decoder_type": "None"},
            },
            "modelrc": {
                "project_dim": int(settings["project_dim"]),
                "select": "RNNs",
                "RNNs": recurrent(settings),
            },
        }

    def before_loader(self, expert: Any, num_workers: int) -> None:
        expert.datarc["num_workers"] = num_workers

    def train_loss(self, expert: Any, features: Tensor, counts: list[int], others: Sequence[Any]) -> Tensor | None:
        from speechft.superb.tasks.losses import ctc_loss

        return ctc_loss(expert, features, counts, others[0], expert.dictionary.pad())

    def files(self, expert: Any, split: str) -> list[Path]:
        dataset = self.dataset(expert, split)
        return sorted(Path(dataset.libri_root) / path for batch in dataset.X for path in batch)

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        return np.asarray(self.dataset(expert, split)._load_wav(str(item.path)), dtype=np.float32)

    @contextlib.contextmanager
    def without_audio(self, samples: Mapping[str, int]) -> Iterator[None]:
        import torch
        from s3prl.downstream.asr import dataset

        del samples  # batches were halved by the lists of lengths
        silence = torch.zeros(1)
        with swapped(dataset, "torchaudio", SimpleNamespace(load=lambda path: (silence, 16_000))):
            yield

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Edit distance over words, as the expert counts it."""
        import editdistance

        lines = []
        triples = zip(records["filenames"], records["pred_words"], records["target_words"], strict=True)
        for name, guess, truth in triples:
            lines.append({"file": str(name), "errors": int(editdistance.eval(guess, truth)), "length": len(truth)})
        return lines
