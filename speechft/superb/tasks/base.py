"""What the engines must know of a SUPERB task, and nothing of what s3prl's expert computes.

A task names s3prl's expert, the files the user has to bring, and how the expert's own data sets are read item by item
(items.py).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from speechft.errors import SpeechFTError
from speechft.superb.draws import Crops, drawn
from speechft.superb.items import SPLITS, Item, Split
from speechft.superb.records import Scores
from speechft.superb.tasks.checks import SYNTHETIC, check_settings, wrong_paths

if TYPE_CHECKING:
    from torch import Tensor

_RECIPE_KEYS = (
    "steps", "batch_size", "accumulate", "optimizer", "lr", "clip", "eval_step", "log_step", "save_step", "project_dim",
    "crops", "num_workers",
)  # fmt: skip


class Task(ABC):
    """A SUPERB task. A new one is a subclass in its own file, an entry in `tasks.NAMES`, and a file in configs/superb.

    Attributes:
        name: as on the command line.
        folder: s3prl's, under s3prl/downstream.
        metric: the key under which the expert logs the main metric.
        higher_better: its direction.
        kind: `pooled` if the expert is linear up to the loss and needs but the mean over time, else `frames`.
        percent: metrics that the expert logs in per cent; results hold fractions throughout.
        needs: keys of `data` the user must set, with what they are and where to get them.
        optional: keys of `data` with paths the user may set.
        recipe_keys: keys of the task's configuration that all trained tasks have.
        extra_keys: its other keys.
        splits: that it has.
    """

    name: str
    folder: str
    metric: str
    higher_better: bool
    kind: Literal["pooled", "frames"]
    needs: ClassVar[Mapping[str, str]]
    optional: Sequence[str] = ()
    percent: Sequence[str] = ()
    recipe_keys: Sequence[str] = _RECIPE_KEYS
    extra_keys: Sequence[str] = ()
    splits: Sequence[str] = SPLITS
    resamples = False
    """Whether s3prl's data set converts other rates than 16 kHz (most just take the samples as they are)."""

    selected_on = "dev"
    """The split whose scores choose among the states of a training; `test` where SUPERB has it so."""
    dev_metric: str | None = None
    """By which metric of the dev set learning rates are compared, in the direction of `metric`; None for `metric`."""
    one_store = False
    """Whether splits and variants share utterances: the features of all splits are then stored as one set."""
    bar: Callable[[str], Callable[[int, int], None]] = staticmethod(lambda label: lambda done, total: None)
    """Label -> a function to be told how much is done and how much there is; shows nothing unless it is replaced."""

    # ---------------------------------------------------------------- evaluations under one name

    def variants(self, settings: Mapping[str, Any]) -> Sequence[str]:
        """Names of the evaluations this task is the mean of (folds); empty when it is one."""
        del settings
        return ()

    def variant(self, name: str) -> Task:
        """The task of one such name."""
        raise NotImplementedError(f"{self.name} has no variant {name}")

    def engine(self, name: str) -> Callable[..., Any] | None:
        """The task's own way of being run by `fast` or `s3prl`, as `engines.fast`; None for training a head."""
        del name
        return None

    # ---------------------------------------------------------------- what the user brings

    def missing(self, data: Mapping[str, Any]) -> list[str]:
        """All that is not there, a phrase each; empty when the task can run."""
        wrong = {key: wrong_paths(key, self.paths(data, key), what) for key, what in self.needs.items()}
        problems = [one for phrases in wrong.values() for one in phrases]
        there = [key for key, phrases in wrong.items() if not phrases]
        try:
            return [*problems, *(self.missing_inside(data, there) if there else [])]
        except SpeechFTError as error:  # a list that cannot be read
            return [*problems, error.what]

    def given(self, data: Mapping[str, Any]) -> bool:
        """Whether a path is set for everything the task needs, right or wrong."""
        return all(self.paths(data, key) for key in self.needs)

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        """What is missing inside the paths that exist.

        Args:
            data: the paths.
            there: the keys of `needs` whose paths exist: at least one.
        """
        del data, there
        return []

    def paths(self, data: Mapping[str, Any], key: str) -> list[Path]:
        """The path or paths under a key of `data`; a list in the configuration is a list here."""
        value = data.get(key)
        if value is None or value == "":
            return []
        values = value if isinstance(value, (list, tuple)) else [value]
        return [Path(str(one)).expanduser().resolve() for one in values]

    def check(self, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Raise one line that names every missing file, or every setting that is wrong.

        Raises:
            SpeechFTError: files.
            UsageError: settings.
        """
        check_settings(self.name, settings, {*self.recipe_keys, *self.extra_keys})
        problems = self.missing(data)
        if problems:
            key = next(iter(self.needs))
            instead = ", or try data.synthetic=demo" if set(self.needs) <= set(SYNTHETIC) else ""
            mend = f"set the paths, for example data.{key}=/path{instead}"
            if all("not installed" in problem for problem in problems):
                raise SpeechFTError(f"{self.name} needs {'; '.join(problems)}", "install what is missing")
            raise SpeechFTError(f"{self.name} needs files that are not there: {'; '.join(problems)}", mend)

    # ---------------------------------------------------------------- s3prl's configuration

    @abstractmethod
    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """s3prl's `downstream_expert` dictionary. Files it needs may be written to `work`."""

    def config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """s3prl's whole configuration: `runner`, `optimizer`, `downstream_expert` (s3prl/downstream/runner.py)."""
        steps = int(settings["steps"])
        return {
            "runner": {
                "total_steps": steps,
                "gradient_clipping": float(settings["clip"]),
                "gradient_accumulate_steps": int(settings["accumulate"]),
                "log_step": min(int(settings["log_step"]), steps),
                # a run shorter than the interval is still evaluated once
                "eval_step": min(int(settings["eval_step"]), steps),
                "save_step": min(int(settings["save_step"]), steps),
                "max_keep": 1,
                "eval_dataloaders": [self.expert_split("dev")],
            },
            "optimizer": {
                "name": "TorchOptim",
                "torch_optim_name": str(settings["optimizer"]),
                "lr": first_rate(settings["lr"]),
            },
            "downstream_expert": self.expert_config(settings, data, work),
            # s3prl's loop masks and warps training features when this is given
            **({"specaug": dict(settings["specaug"])} if settings.get("specaug") else {}),
        }

    def expert_split(self, split: str) -> str:
        """What s3prl's expert calls `train`, `dev` or `test`."""
        return split

    @property
    def best_checkpoint(self) -> str:
        """Under what name the expert has s3prl save a state that is better on dev than those before."""
        return f"{self.expert_split('dev')}-best.ckpt"

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """What must surround the expert's whole life: stand-in modules, redirected caches."""
        del work
        yield

    def settle(self, expert: Any) -> None:
        """Called once on a fresh expert: put its lists into an order that does not depend on the file system."""
        del expert

    def before_loader(self, expert: Any, num_workers: int) -> None:
        """Called before each `get_dataloader`."""
        del expert, num_workers

    def loader(self, expert: Any, split: str) -> Any:
        """The expert's own data loader without worker processes, made once per split.

        Iterating it again draws from the random generators exactly as a fresh one would.
        """
        kept = expert.__dict__.setdefault("_speechft_loaders", {})
        if split not in kept:
            self.before_loader(expert, 0)
            kept[split] = expert.get_dataloader(self.expert_split(split))
        return kept[split]

    # ---------------------------------------------------------------- the data sets, item by item

    @abstractmethod
    def files(self, expert: Any, split: str) -> list[Path]:
        """The audio files of a split, one per element, in the data set's order."""

    @abstractmethod
    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        """The waveform s3prl's data set reads for an item: `[samples]` float32, 16 kHz."""

    @abstractmethod
    def root(self, data: Mapping[str, Any], split: str) -> Path:
        """The folder that the files' names are relative to (part of the data's identity)."""

    @abstractmethod
    def reading(self, settings: Mapping[str, Any]) -> str:
        """What is done to a file between disk and upstream, in words: part of the data's identity."""

    def crop(self, expert: Any, split: str, index: int, samples: int) -> tuple[int, bool]:
        """Length after s3prl's crop (samples), and whether the crop is drawn at random."""
        del expert, split, index
        return samples, False

    def split(self, expert: Any, split: str, crops: int | Crops) -> Split:
        """Enumerate a split; randomly cropped files get so many draws. Reads each file's header."""
        from speechft.data.audio import SAMPLE_RATE, remembered_info

        files: list[tuple[Path, int, int, bool]] = []
        for index, path in enumerate(self.files(expert, split)):
            header = remembered_info(path)
            if header.rate != SAMPLE_RATE and not self.resamples:
                raise SpeechFTError(f"{path} has {header.rate} samples a second", "convert the corpus to 16 kHz")
            samples = round(header.samples * SAMPLE_RATE / header.rate)
            files.append((path, samples, *self.crop(expert, split, index, samples)))
        return drawn(split, files, crops if isinstance(crops, Crops) else Crops(crops))

    @abstractmethod
    def batches(self, expert: Any, split: Split, loader: Any) -> Any:
        """A function from the indices the loader drew to `(item numbers, others)` by the loader's own collate.

        `others` is what follows the waveforms in s3prl's batch: labels, file names.
        """

    # ---------------------------------------------------------------- training

    def train_loss(self, expert: Any, features: Tensor, counts: list[int], others: Sequence[Any]) -> Tensor | None:
        """The loss of a training batch (a scalar on the device), computed by the expert's modules and nothing else.

        Args:
            features: `[rows, dim]`, the weighted sums of all utterances one after the other (pooled: a row each).
            counts: rows of each utterance.
            others: what follows the waveforms in s3prl's batch.

        Returns:
            None where only the expert's own `forward` will do, which then also keeps records of the training set.
        """
        del expert, features, counts, others
        return None

    # ---------------------------------------------------------------- results

    def metrics(self, scores: Scores, split: str) -> dict[str, float]:
        """What the expert logged for a split, every rate as a fraction."""
        logged = scores.of(self.expert_split(split))
        return {name: value / 100 if name in self.percent else value for name, value in logged.items()}

    def is_best(self, names: Sequence[str], metrics: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a state is better than all before it.

        Args:
            names: under which s3prl would save it.
            metrics, before: on `selected_on`: its own and the best state's, empty for the first.
        """
        if self.selected_on == "dev":  # the expert's own judgement
            return self.best_checkpoint in names
        if not before:
            return True
        gain = metrics[self.metric] - before[self.metric]
        return gain > 0 if self.higher_better else gain < 0

    def final(self, expert: Any, metrics: Mapping[str, float], records: MutableMapping[str, Any]) -> dict[str, float]:
        """The test set's metrics with what SUPERB computes outside s3prl, called once after the test set.

        Args:
            expert: what it wrote to its folder is still there.
            metrics: as `metrics` gave them.
            records: the expert's; what `utterances` needs besides may be put there.
        """
        del expert, records
        return dict(metrics)

    @abstractmethod
    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One line per test utterance from the expert's records, for bootstrap intervals later."""


def first_rate(lr: Any) -> float:
    """The learning rate, or the first of several (the engines replace it)."""
    return float(lr[0] if isinstance(lr, (list, tuple)) else lr)
