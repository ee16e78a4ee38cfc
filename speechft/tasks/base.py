"""What a task is: a head on an upstream, labels from cuts, a loss, and a metric over a whole set.

Labels come from a cut's first supervision. The names that corpora and tasks agree on:

| where | what | read by |
|---|---|---|
| `text` | the transcript | asr, pr with a lexicon, sf |
| `speaker` | who speaks | sid |
| `custom["phones"]` | phones, separated by spaces | pr |
| `custom["keyword"]` | the word of a keyword clip, `_unknown_`, `_silence_` | ks |
| `custom["emotion"]` | the emotion | er |
| `custom["action"]`, `["object"]`, `["location"]` | the three slots of an intent | ic |
| `custom["slots"]` | for each word of `text` its slot, or `O`, separated by spaces | sf |

A table (`data=tsv`) gives them by columns of these names. `custom["task"]` is taken: in joint training it says which
task a cut belongs to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from speechft.data.loader import Batch
from speechft.errors import SpeechFTError
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet


class Task(nn.Module, ABC):
    """A head and everything about its labels. The parameters of this module are the head's, thrown away after stage 1.

    A task is built in two moves: `__init__(options)` checks the options, `prepare` sees the data and builds the head.

    Attributes:
        metric: the name, among those that `summary` gives, by which one model is better than another.
    """

    name: str
    metric: str
    higher_is_better: bool = False

    @abstractmethod
    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        """Build vocabularies and the head.

        Args:
            upstream: for its dimension and frame rate; not changed.
            train, dev: the cuts.
            folder: the run's folder, where vocabularies and targets may be kept.

        Raises:
            SpeechFTError: labels are missing or impossible.
        """

    def keep(self, folder: Path) -> None:
        """Write what a reader of the run's folder may want, such as the vocabulary: once it is sure that the run goes
        on with it. Here: nothing."""
        del folder

    def check(self, upstream: Upstream, cuts: Iterable[Any]) -> list[tuple[str, ...]]:
        """Cuts whose labels are missing or cannot be learnt: their ids, why, and, where it is known, what to do.
        Nothing is prepared yet.

        Here: those for which the task's `label(cut)`, if it has one, raises.
        """
        del upstream
        label = getattr(self, "label", None)
        found: list[tuple[str, ...]] = []
        if label is None:
            return found
        for cut in cuts:
            try:
                label(cut)
            except SpeechFTError as error:
                found.append((cut.id, error.what, error.mend))
        return found

    def check_splits(self, train: Sequence[Any], dev: Sequence[Any]) -> list[tuple[str, str, str]]:
        """Cuts of dev that ask for what train never shows, such as a class: their ids, why, and what to do about it.

        Args:
            train, dev: cuts that `check` has passed. Nothing is prepared yet.

        Raises:
            SpeechFTError: nothing can be learnt from `train` as a whole.
        """
        del train, dev
        return []

    def describe(self, cuts: Sequence[Any]) -> list[str]:
        """The labels that `check` has passed, in a line or none: for the summary of a corpus."""
        del cuts
        return []

    @abstractmethod
    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """One training batch: the scalar loss to descend, and figures worth logging."""

    @abstractmethod
    def score(self, upstream: Upstream, batch: Batch) -> Sequence[Any]:
        """What `summary` needs to know of a dev batch: plain values, in any number, best one for each utterance."""

    @abstractmethod
    def summary(self, scores: Sequence[Any]) -> dict[str, float]:
        """The metrics over a whole set, by their names, from the scores of all its batches."""

    def evaluate(self, upstream: Upstream, batches: Iterable[Batch]) -> dict[str, float]:
        """The metrics over a whole set; the caller has set `eval()` and switched gradients off."""
        return self.summary(self.scores(upstream, batches))

    def scores(self, upstream: Upstream, batches: Iterable[Batch]) -> list[Any]:
        """What `summary` needs to know of a whole set.

        What a task draws (masks, other voices) is the same at every evaluation.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [score for batch in batches for score in self.score(upstream, batch)]

    def settings(self) -> dict[str, Any]:
        """What a later reader needs to use the head (vocabularies); stored in each checkpoint."""
        return {}


def refuse(problems: Sequence[tuple[str, str, str]]) -> None:
    """Stop at the first of what `check_splits` found.

    Raises:
        SpeechFTError: there is one.
    """
    for _, reason, mend in problems:
        raise SpeechFTError(reason, mend)


def label_of(cut: Any, field: str) -> str:
    """A label of a cut: its `speaker`, its `text`, or one of its custom fields.

    Raises:
        SpeechFTError: it has none.
    """
    supervision = cut.supervisions[0]
    value = getattr(supervision, field) if field in ("speaker", "text") else (supervision.custom or {}).get(field)
    if value is not None and str(value).strip():
        return str(value)
    if field == "text" and value is not None:
        raise SpeechFTError(f"utterance {cut.id} has an empty transcript", "mend it, or leave the utterance out")
    name = "transcript" if field == "text" else field
    others = sorted(key for key, one in (supervision.custom or {}).items() if isinstance(one, str))
    named = f" (if it is one of {', '.join(others)}: 'data.rename={{{others[0]}: {field}}}')" if others else ""
    mend = f"choose a corpus with that label, or a table with a column {field}{named}"
    raise SpeechFTError(f"utterance {cut.id} has no {name}", mend)
