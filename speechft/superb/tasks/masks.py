"""What SE and SS of SUPERB-SG share: masks on a spectrogram (s3prl/downstream/enhancement_stft2, separation_stft2)."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from speechft.errors import SpeechFTError
from speechft.files import write_text
from speechft.superb.draws import Crops
from speechft.superb.items import SPLITS, Item, Split
from speechft.superb.records import Scores
from speechft.superb.scopes import swapped
from speechft.superb.tasks.base import Task

Wavs = Mapping[str, Mapping[str, Path]]
"""Condition (`noisy`, `clean`; `mix_clean`, `s1`, `s2`) -> utterance -> file."""


class MaskTask(Task):
    """An LSTM on all frames of the mixture says which part of each bin of its spectrogram belongs to a source.

    The waveforms and spectrograms are read for every batch by s3prl's data set, by both engines; what the fast engine
    saves is the upstream.

    Attributes:
        mixture, sources: the conditions that are heard and wanted.
        packages: name on PyPI -> module, of what the score needs.
        shown: what the expert logs -> its name in results.
    """

    kind = "frames"
    higher_better = True
    best_checkpoint = "best-states-dev.ckpt"
    extra_keys = ("rnn_layers", "dropout", "activation", "loss", "mask", "log", "n_fft", "win_length", "hop_length")
    mixture: ClassVar[str]
    sources: ClassVar[Sequence[str]]
    packages: ClassVar[Mapping[str, str]] = {}
    shown: ClassVar[Mapping[str, str]]

    @abstractmethod
    def folders(self, root: Path, split: str) -> Mapping[str, Path]:
        """The folder of each condition in a split."""

    def keeps(self, name: str, split: str) -> bool:
        """Whether a file of those folders belongs to the split."""
        del name, split
        return True

    def wavs(self, data: Mapping[str, Any], split: str) -> Wavs:
        """The files of a split, by name."""
        return {
            condition: {path.stem: path for path in sorted(folder.glob("*.wav")) if self.keeps(path.stem, split)}
            for condition, folder in self.folders(self.root(data, split), split).items()
        }

    def missing(self, data: Mapping[str, Any]) -> list[str]:
        absent = [name for name, module in self.packages.items() if find_spec(module) is None]
        hint = f"{', '.join(absent)} not installed (pip install 'speechft[enhancement]')"
        return ([hint] if absent else []) + super().missing(data)

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        """s3prl dies with a KeyError at the first mixture without its sources."""
        del there
        (needed,) = self.needs.items()
        root = self.root(data, "train")
        folders = [folder for split in SPLITS for folder in self.folders(root, split).values()]
        absent = [str(folder) for folder in dict.fromkeys(folders) if not folder.is_dir()]
        if absent:
            return [f"{', '.join(absent)} not there ({needed[1]})"]
        problems = []
        for split in SPLITS:
            wavs = self.wavs(data, split)
            names = set().union(*wavs.values())
            if not names:
                problems.append(f"no file of {split} is under {root} ({needed[1]})")
            for condition, found in wavs.items():
                gone = sorted(names - found.keys())
                if gone:
                    shown = ", ".join(gone[:5]) + (" ..." if len(gone) > 5 else "")
                    problems.append(
                        f"{len(gone)} of the {len(names)} utterances of {split} have no {condition} file ({shown})"
                    )
            if any(" " in str(path) for found in wavs.values() for path in found.values()):
                problems.append(f"a path under {root} has a space, which s3prl's lists of files do not allow")
        return problems

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The lists of files that s3prl wants are written to `work`."""
        lists = work / "lists"
        for split in SPLITS:
            for condition, found in self.wavs(data, split).items():
                lines = "".join(f"{name} {path}\n" for name, path in found.items())
                write_text(lists / split / condition / "wav.scp", lines)
        return {
            "datarc": {
                "num_speakers": len(self.sources),
                "rate": 16_000,
                "src": [self.mixture],
                "tgt": list(self.sources),
                "n_fft": int(settings["n_fft"]),
                "win_length": int(settings["win_length"]),
                "hop_length": int(settings["hop_length"] or 0),
                "window": "hann",
                "center": True,
            },
            "loaderrc": {
                "num_workers": int(settings["num_workers"]),
                "train_batchsize": int(settings["batch_size"]),
                "eval_batchsize": 1,  # all that s3prl's expert can score
                **{f"{split}_dir": str(lists / split) for split in SPLITS},
            },
            "modelrc": {
                "model": "SepRNN",
                "rnn": "LSTM",
                "rnn_layers": int(settings["rnn_layers"]),
                "hidden_size": int(settings["project_dim"]),
                "dropout": float(settings["dropout"]),
                "non_linear": str(settings["activation"]),
                "bidirectional": True,
                "loss_type": str(settings["loss"]),
                "mask_type": str(settings["mask"]),
                "log": str(settings["log"]),
            },
        }

    def config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The optimizer is one of s3prl's own, by its name: its AdamW decays nothing."""
        config = super().config(settings, data, work)
        config["optimizer"] = {"name": str(settings["optimizer"]), "lr": config["optimizer"]["lr"]}
        return config

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """s3prl's loss moves everything to the first GPU of the machine; `settle` says where it really is. And it stops
        at features more than four frames shorter than the spectrogram."""
        del work
        loss, expert = (import_module(f"s3prl.downstream.{self.folder}.{name}") for name in ("loss", "expert"))
        with swapped(loss, "device", loss.device), swapped(expert, "match_length", _to_length(expert.match_length)):
            yield

    def settle(self, expert: Any) -> None:
        loss: Any = import_module(f"s3prl.downstream.{self.folder}.loss")
        loss.device = next(expert.parameters()).device

    def before_loader(self, expert: Any, num_workers: int) -> None:
        expert.loaderrc["num_workers"] = num_workers

    # ---------------------------------------------------------------- the data sets, item by item

    def dataset(self, expert: Any, split: str) -> Any:
        return getattr(expert, f"{split}_dataset")

    def files(self, expert: Any, split: str) -> list[Path]:
        dataset = self.dataset(expert, split)
        return [Path(dataset.reco2path[name][self.mixture]) for name in dataset.recolist]

    def split(self, expert: Any, split: str, crops: int | Crops) -> Split:
        """Raises:
        SpeechFTError: also for a source that is not as long as its mixture.
        """
        from speechft.data.audio import remembered_info

        made = super().split(expert, split, crops)
        dataset = self.dataset(expert, split)
        for name in dataset.recolist:
            paths = dataset.reco2path[name]
            mixture = remembered_info(paths[self.mixture]).seconds
            for path in (paths[source] for source in self.sources):
                if remembered_info(path).seconds != mixture:
                    raise SpeechFTError(
                        f"{path} is not as long as its mixture {paths[self.mixture]}", "prepare the corpus again"
                    )
        return made

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        """As s3prl's data set reads the mixture."""
        del expert, split
        import librosa

        return np.asarray(librosa.load(str(item.path), sr=16_000)[0], dtype=np.float32)

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, next(iter(self.needs)))[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "masks: one channel, 16 kHz by librosa"

    def batches(
        self, expert: Any, split: Split, loader: Any
    ) -> Callable[[Sequence[int]], tuple[list[int], list[Sequence[Any]]]]:
        """Spectrograms of mixture and sources are s3prl's; its collate puts the longest utterance first."""
        dataset = loader.dataset
        numbers = {name: number for number, name in enumerate(dataset.recolist)}

        def batch(indices: Sequence[int]) -> tuple[list[int], list[Sequence[Any]]]:
            _, *others = loader.collate_fn([dataset[index] for index in indices])
            return [numbers[name] for name in others[0]], others

        return batch

    # ---------------------------------------------------------------- results

    def metrics(self, scores: Scores, split: str) -> dict[str, float]:
        return {self.shown.get(name, name): value for name, value in super().metrics(scores, split).items()}

    def final(self, expert: Any, metrics: Mapping[str, float], records: MutableMapping[str, Any]) -> dict[str, float]:
        records["names"] = list(self.dataset(expert, "test").recolist)
        return dict(metrics)

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each metric of every mixture."""
        columns = [[float(value) for value in records[name]] for name in self.shown]
        return [
            {"file": name, **dict(zip(self.shown.values(), values, strict=True))}
            for name, *values in zip(records["names"], *columns, strict=True)
        ]


def _to_length(match_length: Callable[..., Any]) -> Callable[..., Any]:
    """s3prl's own, which adds frames of zeros at the end, given features that already have them: upstreams that hear
    further than HuBERT's 25 ms (`hubert_nano`) end earlier."""

    def wrapped(features: Sequence[Any], lengths: Sequence[Any]) -> Any:
        import torch

        pairs = zip(features, lengths, strict=True)
        filled = [torch.nn.functional.pad(one, (0, 0, 0, max(0, int(length) - len(one)))) for one, length in pairs]
        return match_length(filled, lengths)

    return wrapped
