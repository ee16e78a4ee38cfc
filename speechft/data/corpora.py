"""From a corpus on disk to cuts: a reader per layout (`readers/`), then lhotse's cuts for all of them.

A cut carries its transcript in `supervisions[0].text`, its speaker in `.speaker`, gender and language likewise, and any
other label (such as `phones`) in `.custom`. Corpora are described by entries of `data.train` and `data.dev` in the
configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from speechft.data.cuts import Entry, belonging, entry_of, path_of
from speechft.data.headers import Headers
from speechft.data.lexicon import pronounce, read_lexicon
from speechft.data.problems import Problem, refusal, together
from speechft.data.readers.aishell3 import aishell3
from speechft.data.readers.base import Utterance
from speechft.data.readers.common_voice import common_voice
from speechft.data.readers.crema_d import crema_d
from speechft.data.readers.fluent_commands import fluent_commands
from speechft.data.readers.huggingface import huggingface
from speechft.data.readers.iemocap import iemocap
from speechft.data.readers.librispeech import librispeech
from speechft.data.readers.manifests import lhotse
from speechft.data.readers.own import own_reader
from speechft.data.readers.recipes import recipe
from speechft.data.readers.snips import snips
from speechft.data.readers.speech_commands import speech_commands
from speechft.data.readers.tables import table
from speechft.data.readers.tedlium3 import tedlium3
from speechft.data.readers.voxceleb1 import voxceleb1
from speechft.data.shares import filled, nobody, split_position
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet

T = TypeVar("T")
R = TypeVar("R")


def synthetic(split: str, size: str = "demo", seed: int = 0) -> list[Utterance]:
    """A LibriSpeech-like split of the synthetic corpus, made at first use, with the phones of its own lexicon."""
    from speechft.data.synthetic.corpus import make_corpus

    corpus = make_corpus(size, seed)
    lexicon = read_lexicon(corpus.lexicon)
    return [
        replace(utterance, labels={"phones": " ".join(pronounce(utterance.text or "", lexicon))})
        for utterance in librispeech(str(corpus.librispeech), split)
    ]


KINDS: dict[str, Callable[..., list[Any]]] = {
    "aishell3": aishell3, "common_voice": common_voice, "crema_d": crema_d, "fluent_commands": fluent_commands,
    "huggingface": huggingface, "iemocap": iemocap, "lhotse": lhotse, "librispeech": librispeech, "recipe": recipe,
    "snips": snips, "speech_commands": speech_commands, "synthetic": synthetic, "tedlium3": tedlium3, "tsv": table,
    "voxceleb1": voxceleb1,
}  # fmt: skip
"""Corpus kinds by name: a function that gives utterances, or lhotse's cuts. A new layout is a file in `readers/` and a
line here."""


def load_cuts(sources: Iterable[Mapping[str, Any]], skip_bad: bool = False) -> tuple[CutSet, list[tuple[str, str]]]:
    """Read the corpora of one split.

    Args:
        sources: see `find`.
        skip_bad: leave out what cannot be used instead of stopping.

    Returns:
        The cuts (16 kHz mono by resampling on reading), and what was left out: (id, reason).

    Raises:
        UsageError: an unknown kind or option.
        SpeechFTError: a missing folder, audio that is missing or broken, or nothing left.
    """
    found = find(sources)
    entries, problems = entries_of(found, headers_of(found), "train")
    if problems and not skip_bad:
        raise refusal(problems)
    return as_cuts(entries), [(problem.id, problem.reason) for problem in problems]


def as_cuts(entries: Iterable[Entry]) -> CutSet:
    """The cuts of a split.

    Raises:
        SpeechFTError: there is none.
    """
    from lhotse import CutSet

    cuts = [cut for entry in entries for cut in entry.cuts]
    if not cuts:
        raise SpeechFTError(
            "the training set holds no usable utterance", "see what data.train asks for: folder, split, speakers, hours"
        )
    return CutSet.from_cuts(cuts)


def find(sources: Iterable[Mapping[str, Any]]) -> list[Found]:
    """What the readers of a split's entries find; no audio is looked at.

    Args:
        sources: entries such as `{kind: librispeech, root: ..., split: train-clean-100}`. `split` may be a list. Any
            kind also takes, in the order in which they are applied: `speaker_fraction` (a share of the speakers, such
            as `[0.0, 0.9]`, by a hash of their names, of few speakers one at least, see `shares.filled`; with
            `split_by: utterances` a share of the utterances, by a hash of their ids, so that all shares have the same
            speakers), `limit` (utterances), `task` (whose it is, in joint training), `min_seconds`, `max_seconds`,
            `hours` (from the start, up to the utterance that passes it), `normalize: letters` (see `text.letters`), and
            `speeds`: every utterance once at each of these speeds, pitch included (`[0.9, 1.0, 1.1]`: Kaldi's speed
            perturbation, Ko et al., Interspeech 2015).

    Raises:
        UsageError: an unknown kind or option.
        SpeechFTError: folders or files of corpora are missing; all of them are named.
    """

    def one(source: Mapping[str, Any]) -> Found:
        options = Options.of(source)
        return Found(options, options.select(_items(source)))

    return all_of(one, sources)


def apart(train: Sequence[Found], dev: Sequence[Found]) -> list[Found]:
    """Training parts without the speakers of dev, where both take shares of the speakers that do not overlap: of few
    speakers a bound is moved (`shares.filled`), and not to the same place where the parts have other speakers."""

    def shares(found: Found) -> tuple[float, float] | None:
        return found.options.fraction if found.options.split_by == "speakers" else None

    parts = []
    for one in train:
        mine = shares(one)
        held_out = {
            _speaker(item)
            for other in dev
            if mine and (theirs := shares(other)) and (mine[1] <= theirs[0] or theirs[1] <= mine[0])
            for item in other.items
        }
        items = [item for item in one.items if _speaker(item) not in held_out] if held_out else one.items
        parts.append(replace(one, items=items))
    return parts


def all_of(read: Callable[[T], R], sources: Iterable[T]) -> list[R]:
    """What is read from each source; of those that are missing, one error names all.

    Raises:
        UsageError: the first one that `read` raises.
        SpeechFTError: all others together.
    """
    found, missing = [], []
    for source in sources:
        try:
            found.append(read(source))
        except UsageError:
            raise
        except SpeechFTError as error:
            missing.append(error)
    if missing:
        raise together(missing) from missing[0]
    return found


def headers_of(found: Iterable[Found], loud: bool = True) -> Headers:
    """The headers of all audio files; `loud` shows progress."""
    headers = Headers(path for one in found for item in one.items if (path := path_of(item)) is not None)
    headers.read(loud)
    headers.save()
    return headers


def entries_of(found: Iterable[Found], headers: Headers, split: str) -> tuple[list[Entry], list[Problem]]:
    """What can be used of a split, and what cannot; of utterances with one id the first."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for one in found:
        options, heard = one.options, 0.0
        for item in one.items:
            if options.hours is not None and heard > 3600 * options.hours:
                break
            entry = entry_of(item, headers, options.normalize, options.speeds, split)
            if isinstance(entry, Problem):
                problems.append(entry)
            elif options.shortest <= entry.seconds and (options.longest is None or entry.seconds <= options.longest):
                heard += entry.seconds
                entries.append(entry)
    different: dict[str, Entry] = {}
    for entry in entries:
        if entry.id in different:  # the first of them stays
            reason = f"utterance {entry.id} is in the corpus twice ({entry.path})"
            mend = "give every utterance an id of its own"
            problems.append(Problem(split, f"{entry.id} (again)", "duplicate", reason, mend))
        different.setdefault(entry.id, entry)
    return list(different.values()), problems


@dataclass(frozen=True)
class Options:
    """What every kind takes."""

    fraction: tuple[float, float] | None
    split_by: str
    limit: int | None
    shortest: float
    longest: float | None
    hours: float | None
    normalize: bool
    speeds: list[float]
    task: str | None

    NAMES = ("speaker_fraction", "split_by", "limit", "min_seconds", "max_seconds", "hours", "normalize", "speeds",
             "task")  # fmt: skip

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Options:
        fraction, normalize = source.get("speaker_fraction"), source.get("normalize")
        if normalize not in (None, "letters"):
            raise UsageError(f"normalize {normalize!r} of a corpus", "known: letters, or null for the text as it is")
        numbers = {key: source.get(key) for key in ("limit", "min_seconds", "max_seconds", "hours")}
        wrong = [key for key, value in numbers.items() if value is not None and not isinstance(value, (int, float))]
        if wrong:
            raise UsageError(f"{wrong[0]} {numbers[wrong[0]]!r} of a corpus", "give a number, or null")
        limit = numbers["limit"]
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise UsageError(f"limit {limit!r} of a corpus", "give a whole number of utterances, or null")
        if fraction is not None and not (isinstance(fraction, (list, tuple)) and len(fraction) == 2):
            raise UsageError(f"speaker_fraction {fraction!r} of a corpus", "give two numbers, such as [0.0, 0.9]")
        split_by = source.get("split_by") or "speakers"
        if split_by not in ("speakers", "utterances"):
            raise UsageError(f"split_by {split_by!r} of a corpus", "known: speakers, utterances")
        return cls(
            None if fraction is None else (float(fraction[0]), float(fraction[1])), split_by, limit,
            float(numbers["min_seconds"] or 0.0), numbers["max_seconds"], numbers["hours"],
            normalize == "letters", _speeds(source.get("speeds")), source.get("task"),
        )  # fmt: skip

    def select(self, items: list[Any]) -> list[Any]:
        if self.fraction is not None:
            low, high = self.fraction
            whose = _speaker if self.split_by == "speakers" else _id
            places = {name: split_position(name) for name in map(whose, items)}
            low, high = filled(low, high, places)
            if places and not any(low <= place < high for place in places.values()):
                raise nobody(places, (low, high), self.split_by)
            items = [item for item in items if low <= places[whose(item)] < high]
        items = items[: self.limit]
        return items if self.task is None else [belonging(item, self.task) for item in items]


@dataclass(frozen=True)
class Found:
    """What a reader found: utterances or lhotse's cuts, and what to do with them."""

    options: Options
    items: list[Any]


def _speeds(value: Any) -> list[float]:
    speeds = [1.0] if value is None else list(value)
    if (
        not speeds
        or len(set(speeds)) < len(speeds)
        or not all(isinstance(speed, (int, float)) and 0.5 <= speed <= 2.0 for speed in speeds)
    ):
        raise UsageError(f"speeds {value} of a corpus", "give different factors from 0.5 to 2, such as [0.9, 1.0, 1.1]")
    return [float(speed) for speed in speeds]


def _items(source: Mapping[str, Any]) -> list[Any]:
    """The utterances or cuts of an entry's corpus."""
    options = {key: value for key, value in source.items() if key not in Options.NAMES}
    kind = str(options.pop("kind", None))
    if ":" not in kind and kind not in KINDS:
        known = f"known: {', '.join(sorted(KINDS))}, or your own: path/to/file.py:function"
        raise UsageError(f"unknown corpus kind {kind!r}", known)
    read = own_reader(kind) if ":" in kind else KINDS[kind]
    splits = options["split"] if isinstance(options.get("split"), (list, tuple)) else None
    try:
        if splits is None:
            return list(read(**options))
        return [item for split in splits for item in read(**{**options, "split": split})]
    except TypeError as error:
        raise UsageError(f"corpus kind {kind}: {error}", "check the options of this entry of data") from error


def _speaker(item: Any) -> str:
    if isinstance(item, Utterance):
        return item.speaker or item.id
    return item.supervisions[0].speaker or item.id


def _id(item: Any) -> str:
    return str(item.id)
