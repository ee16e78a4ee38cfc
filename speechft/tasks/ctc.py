"""CTC on phones (PR) or characters (ASR), reading the last hidden state."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from speechft.data.lexicon import missing_words, pronounce, read_lexicon
from speechft.data.loader import Batch
from speechft.errors import SpeechFTError, UsageError
from speechft.files import write_json
from speechft.tasks.base import Task, label_of, refuse
from speechft.tasks.heads import build_head
from speechft.tasks.specaugment import augmented, check_options, tell_if_narrow
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet

BLANK = 0
SPACE = "|"
_RARE = 2
"""So few examples of a unit teach nothing; `describe` names it."""


class CtcTask(Task):
    """Connectionist temporal classification (Graves et al., 2006) of a sequence of units.

    Args:
        units: `phones` (metric PER) or `characters` (metrics WER and CER; a space is a unit, written `|`).
        lexicon: word to phones, for corpora whose cuts carry no `phones` of their own; `synthetic` is the synthetic
            corpus's.
        head, hidden, dropout: see `heads.py`.
        specaugment: null, or the numbers that `specaugment.py` takes.
    """

    def __init__(self, units: str, lexicon: str | None = None, head: str = "linear", hidden: int = 256,
                 dropout: float = 0.2, specaugment: dict[str, int] | None = None) -> None:  # fmt: skip
        super().__init__()
        if units not in ("phones", "characters"):
            raise UsageError(f"unknown units {units!r}", "known: phones, characters")
        self.units = units
        self.name = "pr" if units == "phones" else "asr"
        self.metric = "per" if units == "phones" else "wer"
        self._lexicon = read_lexicon(lexicon) if lexicon else None
        self._head_options = (head, hidden, dropout)
        self._specaugment = check_options(specaugment) if specaugment else None
        self.vocabulary: list[str] = []
        self._index: dict[str, int] = {}

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        if self._lexicon is not None:
            texts = [cut.supervisions[0].text or "" for part in (train, dev or []) for cut in part]
            missing = missing_words(texts, self._lexicon)
            if missing:
                raise SpeechFTError(
                    f"{len(missing)} words are not in the lexicon: {', '.join(missing[:5])}", "add them to the lexicon"
                )
        seen = self._units_of(train)
        self.vocabulary = ["<blank>", *sorted(seen)]
        self._index = {unit: index for index, unit in enumerate(self.vocabulary)}
        self._check_lengths(upstream, train)
        refuse(self._lacking(seen, dev or []))
        if self._specaugment:
            tell_if_narrow(self._specaugment, upstream.dim)
        kind, hidden, dropout = self._head_options
        self.head = build_head(kind, upstream.dim, hidden, len(self.vocabulary), dropout)
        self.ctc = nn.CTCLoss(blank=BLANK, zero_infinity=True)

    def keep(self, folder: Path) -> None:
        write_json(folder / "units.json", self.settings())

    def check(self, upstream: Upstream, cuts: Iterable[Any]) -> list[tuple[str, ...]]:
        """Besides missing labels: words that the lexicon lacks, and more units than CTC can align with the frames."""
        found: list[tuple[str, ...]] = []
        for cut in cuts:
            try:
                needed, frames = self._needed(upstream, cut)
            except SpeechFTError as error:
                found.append((cut.id, error.what, error.mend))
            except KeyError as error:
                found.append((cut.id, f"utterance {cut.id} has the word {error}, which the lexicon lacks"))
            else:
                if frames < needed:
                    reason = f"utterance {cut.id} needs {needed} frames for its {self.units} and has {frames}"
                    found.append((cut.id, reason))
        return found

    def check_splits(self, train: Sequence[Any], dev: Sequence[Any]) -> list[tuple[str, str, str]]:
        """Utterances of dev with units that the training set and the lexicon lack."""
        return self._lacking(self._units_of(train), dev)

    def describe(self, cuts: Sequence[Any]) -> list[str]:
        """How many units there are, and the rare ones, where odd characters and slips of transcribers show."""
        counts = Counter(unit for cut in cuts for unit in self.label(cut))
        first: dict[str, str] = {}
        for cut in cuts:
            for unit in self.label(cut):
                first.setdefault(unit, cut.id)
        rare = sorted((count, unit) for unit, count in counts.items() if count <= _RARE)
        shown = ", ".join(f"{unit!r} {count}x (as in {first[unit]})" for count, unit in rare[:5])
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        return [f"{self.units}: {len(counts)} different" + (f"; rare: {shown}{more}" if rare else "")]

    def _units_of(self, cuts: Iterable[Any]) -> set[str]:
        """All units of the labels and of the lexicon."""
        return {unit for cut in cuts for unit in self.label(cut)} | self.known_units()

    def _lacking(self, known: set[str], dev: Iterable[Any]) -> list[tuple[str, str, str]]:
        found = []
        for cut in dev:
            if unknown := sorted(set(self.label(cut)) - known):
                reason = f"utterance {cut.id} of the dev set has {self.units} that the training set lacks: {unknown}"
                found.append((cut.id, reason, "choose splits that share their units, or give a lexicon"))
        return found

    def _needed(self, upstream: Upstream, cut: Any) -> tuple[int, int]:
        """Frames that CTC needs at least, with a blank between equal neighbours, and frames that there are."""
        label = self.label(cut)
        repeats = sum(a == b for a, b in itertools.pairwise(label))
        return len(label) + repeats, int(upstream.frame_counts(torch.tensor([cut.num_samples]))[0])

    def known_units(self) -> set[str]:
        """Units there are, whether the training set has them or not."""
        return {phone for phones in (self._lexicon or {}).values() for phone in phones}

    def _check_lengths(self, upstream: Upstream, cuts: CutSet) -> None:
        impossible = []
        for cut in cuts:
            needed, frames = self._needed(upstream, cut)
            if frames < needed:
                impossible.append(cut.id)
        if len(impossible) > 0.01 * len(cuts) + 1:
            raise SpeechFTError(
                f"{len(impossible)} of {len(cuts)} utterances have more {self.units} than frames, as {impossible[0]}",
                "CTC cannot align them: check that transcripts and audio belong together",
            )

    def label(self, cut: Any) -> list[str]:
        """The units of a cut.

        Raises:
            SpeechFTError: it has neither phones nor a transcript and a lexicon.
        """
        supervision = cut.supervisions[0]
        if self.units == "characters":
            return list(SPACE.join(label_of(cut, "text").upper().split()))
        phones = (supervision.custom or {}).get("phones")
        if phones:
            return phones.split()
        if self._lexicon is None or supervision.text is None:
            raise SpeechFTError(
                f"utterance {cut.id} has no phones", "give task.lexicon, or a column named phones in the corpus table"
            )
        return pronounce(label_of(cut, "text"), self._lexicon)

    def _logits(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = upstream(batch.waves, last_only=True)
        states = hidden.last
        if self.training and self._specaugment:
            states = augmented(states, hidden.frames, **self._specaugment)
        return self.head(states, hidden.frames), hidden.frames

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits, frames = self._logits(upstream, batch)
        labels = [torch.tensor([self._index[unit] for unit in self.label(cut)]) for cut in batch.cuts]
        lengths = torch.tensor([len(label) for label in labels])
        log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # [frames, batch, classes]
        targets = torch.cat(labels).to(logits.device)
        return self.ctc(log_probs, targets, frames.cpu(), lengths), {}

    def score(self, upstream: Upstream, batch: Batch) -> list[tuple[list[str], list[str]]]:
        """What was said and what was heard, in units, for each utterance."""
        logits, frames = self._logits(upstream, batch)
        scores = []
        for cut, path, count in zip(batch.cuts, logits.argmax(-1), frames.tolist(), strict=True):
            units = path[:count].unique_consecutive().tolist()
            scores.append((self.label(cut), [self.vocabulary[unit] for unit in units if unit != BLANK]))
        return scores

    def summary(self, scores: Sequence[tuple[list[str], list[str]]]) -> dict[str, float]:
        import jiwer

        references, hypotheses = ([" ".join(pair[side]) for pair in scores] for side in (0, 1))
        unit_error = 100 * jiwer.wer(references, hypotheses)
        if self.units == "phones":
            return {"per": unit_error}
        spoken, heard = ([line.replace(" ", "").replace(SPACE, " ").strip() for line in lines]
                         for lines in (references, hypotheses))  # fmt: skip
        return {"wer": 100 * jiwer.wer(spoken, heard), "cer": unit_error}

    def settings(self) -> dict[str, Any]:
        return {"units": self.units, "vocabulary": self.vocabulary}
