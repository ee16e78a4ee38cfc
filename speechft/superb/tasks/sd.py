"""SD: who speaks when in mixtures of two speakers, Libri2Mix (s3prl/downstream/diarization)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from speechft.errors import SpeechFTError
from speechft.superb.der import Turn, best_errors, error_rate, read_rttm
from speechft.superb.draws import Crops
from speechft.superb.items import SPLITS, Item, Split
from speechft.superb.records import Scores
from speechft.superb.scopes import swapped
from speechft.superb.tasks.base import Task

_FILES = ("wav.scp", "segments", "utt2spk", "reco2dur")


@dataclass(frozen=True)
class Chunk(Item):
    """A stretch of a recording; `start` and `end` in label frames. `index` is the element of the data set it is of."""

    start: int = 0
    end: int = 0


class SD(Task):
    """An LSTM over all frames. Training and dev elements are chunks; a test element is a recording in all its chunks.

    s3prl's own score is a mean over batches of a frame-wise error (`frame_der` here). The official one (`der`) is
    computed from the predictions that s3prl's expert writes: see `der.py`.
    """

    name = "sd"
    folder = "diarization"
    metric = "der"
    dev_metric = "frame_der"
    higher_better = False
    kind = "frames"
    best_checkpoint = "best-states-dev.ckpt"
    needs: ClassVar[Mapping[str, str]] = {
        "librimix": "the folder with train, dev and test (wav.scp, segments, utt2spk, reco2dur, rttm) that "
        "scripts/prepare_diarization.py of github.com/ftshijt/LibriMix writes from Libri2Mix/wav16k/max/metadata"
    }
    extra_keys = ("eval_batch_size", "chunk_frames", "num_speakers")

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        del there
        root = self.paths(data, "librimix")[0]
        absent = [root / split / name for split in SPLITS for name in _FILES if not (root / split / name).is_file()]
        if absent:
            return [f"{', '.join(map(str, absent))} not there ({self.needs['librimix']})"]
        return [problem for split in SPLITS for problem in _problems(root / split)]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """Labels get the upstream's frame rate: s3prl does so when the configuration names none."""
        root = self.paths(data, "librimix")[0]
        return {
            "datarc": {
                "chunk_size": int(settings["chunk_frames"]),
                "subsampling": 1,
                "label_delay": 0,
                "num_speakers": int(settings["num_speakers"]),
                "rate": 16_000,
            },
            "loaderrc": {
                "num_workers": int(settings["num_workers"]),
                "train_batchsize": int(settings["batch_size"]),
                "eval_batchsize": int(settings["eval_batch_size"]),
                **{f"{split}_dir": str(root / split) for split in SPLITS},
            },
            "scorerc": {"save_predictions": True},
            "modelrc": {"rnn_layers": 1, "hidden_size": int(settings["project_dim"])},
        }

    # ---------------------------------------------------------------- the data sets, item by item

    def dataset(self, expert: Any, split: str) -> Any:
        return self.loader(expert, split).dataset

    def files(self, expert: Any, split: str) -> list[Path]:
        dataset = self.dataset(expert, split)
        names = dataset.rec_list if split == "test" else [name for name, _, _ in dataset.chunk_indices]
        return [Path(dataset.data.wavs[name]) for name in names]

    def split(self, expert: Any, split: str, crops: int | Crops) -> Split:
        """Nothing is cropped; the chunks of element `i` are items `first[i] ... first[i+1]-1`.

        Raises:
            SpeechFTError: a recording that is not 16 kHz, or has more speakers than the head.
        """
        del crops
        from speechft.data.audio import SAMPLE_RATE, audio_info

        dataset = self.dataset(expert, split)
        headers = {name: audio_info(path) for name, path in dataset.data.wavs.items()}
        for name, header in headers.items():
            if header.rate != SAMPLE_RATE:
                path = dataset.data.wavs[name]
                raise SpeechFTError(f"{path} has {header.rate} samples a second", "convert the corpus to 16 kHz")
            speakers = {dataset.data.utt2spk[segment["utt"]] for segment in dataset.data.segments[name]}
            if len(speakers) > dataset.n_speakers:
                raise SpeechFTError(
                    f"{name} of {dataset.data_dir} has {len(speakers)} speakers, more than {dataset.n_speakers}",
                    f"set superb.sd.num_speakers={len(speakers)}",
                )
        elements = (
            [dataset.chunk_indices[name] for name in dataset.rec_list]
            if split == "test"
            else [[one] for one in dataset.chunk_indices]
        )
        items: list[Item] = []
        first = [0]
        for index, chunks in enumerate(elements):
            for name, start, end in chunks:
                begin = min(start * dataset.frame_shift, headers[name].samples)
                samples = min(end * dataset.frame_shift, headers[name].samples) - begin
                items.append(Chunk(index, 0, Path(dataset.data.wavs[name]), samples, start=start, end=end))
            first.append(len(items))
        return Split(split, items, first)

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        assert isinstance(item, Chunk)
        dataset = self.dataset(expert, split)
        start, end = item.start * dataset.frame_shift, item.end * dataset.frame_shift
        wave, _ = dataset.data._load_wav(str(item.path), start, end)
        return np.asarray(wave, dtype=np.float32)

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "librimix")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        return f"sd: chunks of {int(settings['chunk_frames'])} of the upstream's frames"

    def batches(
        self, expert: Any, split: Split, loader: Any
    ) -> Callable[[Sequence[int]], tuple[list[int], list[Sequence[Any]]]]:
        """Labels are asked of s3prl's data set, shown one sample of silence for every chunk, and kept."""
        from s3prl.downstream.diarization import dataset as module

        silent = SimpleNamespace(read=lambda *_, **__: (np.zeros(1), 16_000))
        known: dict[int, Any] = {}

        def element(index: int) -> Any:
            if index not in known:
                with swapped(module, "sf", silent):
                    known[index] = loader.dataset[index]
            return known[index]

        def batch(indices: Sequence[int]) -> tuple[list[int], list[Sequence[Any]]]:
            _, *others = loader.collate_fn([element(index) for index in indices])
            return [n for index in indices for n in range(split.first[index], split.first[index + 1])], others

        return batch

    # ---------------------------------------------------------------- results

    def metrics(self, scores: Scores, split: str) -> dict[str, float]:
        return {{"der": "frame_der"}.get(name, name): value for name, value in super().metrics(scores, split).items()}

    def final(self, expert: Any, metrics: Mapping[str, float], records: MutableMapping[str, Any]) -> dict[str, float]:
        """The official error rate, and the threshold and median filter that gave it."""
        dataset = self.dataset(expert, "test")
        probabilities = {name: _predicted(Path(expert.score_dir), name) for name in dataset.rec_list}
        seconds = expert.datarc["frame_shift"] / 16_000
        errors, threshold, median = best_errors(reference_turns(dataset), probabilities, seconds)
        records["recordings"] = list(errors.items())
        return {"der": error_rate(errors), **metrics, "threshold": threshold, "median": float(median)}

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One line per recording, in seconds of speaker time."""
        return [
            {
                "file": name, "errors": one.total, "length": one.scored,
                "missed": one.missed, "false_alarm": one.false_alarm, "confusion": one.confusion,
            }
            for name, one in records["recordings"]
        ]  # fmt: skip


def reference_turns(dataset: Any) -> dict[str, list[Turn]]:
    """Recording -> turns: the folder's `rttm`, which s3prl's score.sh uses, or else its `segments`."""
    path = Path(dataset.data_dir) / "rttm"
    if path.is_file():
        turns = read_rttm(path)
        absent = sorted(set(dataset.rec_list) - set(turns))
        if absent:
            raise SpeechFTError(f"{path} lacks {', '.join(absent[:5])}", "remove it to take the segments instead")
        return turns
    return {
        name: [(one["st"], one["et"], dataset.data.utt2spk[one["utt"]]) for one in dataset.data.segments[name]]
        for name in dataset.rec_list
    }


def _predicted(folder: Path, name: str) -> np.ndarray:
    """What s3prl's expert wrote for a recording: `[frames, speakers]` probabilities."""
    import h5py

    with h5py.File(folder / "predictions" / f"{name}.h5", "r") as file:
        return np.asarray(file["T_hat"])


def _problems(folder: Path) -> list[str]:
    """What of a kaldi folder does not fit together, as s3prl's data set reads it."""
    keys = {name: _keys(folder / name) for name in _FILES}
    wavs = keys["wav.scp"]
    commands = [name for name, rest in wavs.items() if rest.endswith("|") or rest == "-"]
    if commands:
        return [f"{folder}/wav.scp has commands ({commands[0]} ...) where files are wanted"]
    lacking = {
        "wav.scp": [f"{rest} ({name})" for name, rest in wavs.items() if not Path(rest).is_file()],
        "reco2dur": [name for name in wavs if name not in keys["reco2dur"]],
        "segments": sorted(set(wavs) - {rest.split()[0] for rest in keys["segments"].values() if rest}),
        "utt2spk": [name for name in keys["segments"] if name not in keys["utt2spk"]],
    }
    return [
        f"{folder}/{name} {'names files that are not there' if name == 'wav.scp' else 'lacks'}: "
        + ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        for name, absent in lacking.items()
        if absent
    ]  # fmt: skip


def _keys(path: Path) -> dict[str, str]:
    """First word of each line -> the rest."""
    lines = [line.strip().split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {line[0]: line[1] if len(line) > 1 else "" for line in lines}
