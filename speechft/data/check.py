"""The corpora of a run, looked at before anything is trained: durations, rates, labels, what both splits have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.console import say
from speechft.data.audio import load_audio
from speechft.data.corpora import all_of, apart, as_cuts, entries_of, find, headers_of
from speechft.data.cuts import Entry
from speechft.data.headers import Headers, in_threads
from speechft.data.problems import Problem, counted, refusal, write_listing
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet

LabelCheck = Callable[[Sequence[Any]], Iterable[tuple[str, ...]]]
"""Cuts -> (id, reason) or (id, reason, what to do) of those whose label the task cannot learn; `Task.check` with its
upstream."""
SplitCheck = Callable[[Sequence[Any], Sequence[Any]], Iterable[tuple[str, str, str]]]
"""Cuts of train and of dev -> (id, reason, what to do) of those of dev that ask for what train never shows;
`Task.check_splits`."""

_CHECKS = {"shortest": 0.1, "longest": 60.0, "duplicates": True, "decode": False}


@dataclass
class Corpus:
    """What a run trains on.

    Attributes:
        train, dev: what can be used, without what is bad; `dev` None where there is none.
        problems: what is bad.
        summary: by split: utterances, hours, durations, rates, speakers.
    """

    train: CutSet
    dev: CutSet | None
    problems: list[Problem]
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)

    def lines(self, labels: Sequence[str] = ()) -> list[str]:
        """The summary for people, a line a split, what there is to say about the labels, and one on what is bad."""
        text = [*(_line(name, part) for name, part in self.summary.items()), *labels]
        return [*text, f"bad: {counted(self.problems)}"] if self.problems else text

    def tell(self, folder: Path) -> None:
        """Say the summary, and list in `FOLDER/skipped.tsv` what was left out."""
        for line in self.lines():
            say(line)
        if self.problems:
            listing = write_listing(folder / "skipped.tsv", self.problems)
            count = len(self.problems)
            say(f"{count} utterance{'s' if count > 1 else ''} skipped, listed in {listing}")


def load_corpus(
    data: Mapping[str, Any], check_labels: LabelCheck | None = None, loud: bool = True, listing: Path | None = None,
    check_splits: SplitCheck | None = None,
) -> Corpus:  # fmt: skip
    """Read and check the corpora of the `data` group; nothing bad is left in.

    Args:
        data: `train` and `dev` (see `corpora.find`), and `checks`: `shortest` and `longest` (seconds; null for no
            limit), `duplicates` (whether an utterance of dev may not be in train too) and `decode` (whether all audio
            is decoded, too, which takes long, and finds files that break off).
        check_labels: the task's view of the labels.
        loud: show progress.
        listing: where to list what is bad, if nothing else is left.
        check_splits: the task's view of what both splits have.

    Raises:
        UsageError: an unknown kind or option.
        SpeechFTError: corpora are missing (all that is missing is named), or nothing is left.
    """
    checks = {**_CHECKS, **(data.get("checks") or {})}
    if unknown := sorted(checks.keys() - _CHECKS.keys()):
        raise UsageError(f"unknown check of data: {', '.join(unknown)}", f"known: {', '.join(_CHECKS)}")
    names = ("train", "dev")
    found = dict(zip(names, all_of(lambda name: find(data.get(name) or []), names), strict=True))
    found["train"] = apart(found["train"], found["dev"])
    headers = headers_of((one for part in found.values() for one in part), loud)
    entries: dict[str, list[Entry]] = {}
    problems: list[Problem] = []
    for name, part in found.items():
        if part:
            entries[name], bad_ones = entries_of(part, headers, name)
            problems += bad_ones
    for name, usable in entries.items():
        problems += _durations(usable, name, checks["shortest"], checks["longest"])
        if checks["decode"]:
            problems += _decoded(usable, name, loud)
        if check_labels is not None:
            cuts = [cut for entry in usable for cut in entry.cuts]
            owner = {cut.id: entry.id for entry in usable for cut in entry.cuts}
            found_labels = {owner[one]: told for one, *told in check_labels(cuts)}
            problems += [Problem(name, one, "label", *told) for one, told in found_labels.items()]
    if check_splits is not None and all(entries.values()):
        problems += _across(entries, problems, check_splits)
    if checks["duplicates"] and "train" in entries and "dev" in entries:
        problems += duplicates(entries["train"], entries["dev"], headers, loud)
    problems = list({(one.split, one.id): one for one in reversed(problems)}.values())[::-1]  # the first of each
    bad = {(one.split, one.id) for one in problems}
    good = {name: [entry for entry in part if (name, entry.id) not in bad] for name, part in entries.items()}
    if problems and not all(good.values()):
        raise refusal(problems, write_listing(listing, problems) if listing else None, left=False)
    summary = {name: _summary(part, data.get("batch_seconds")) for name, part in good.items()}
    dev = as_cuts(good["dev"]) if "dev" in good else None
    return Corpus(as_cuts(good.get("train", [])), dev, problems, summary)


def _across(entries: Mapping[str, Sequence[Entry]], problems: Sequence[Problem], check: SplitCheck) -> list[Problem]:
    """What dev asks for that train never shows, among what is good so far."""
    bad = {(one.split, one.id) for one in problems}
    owner: dict[str, str] = {}
    cuts: dict[str, list[Any]] = {"train": [], "dev": []}
    for name, part in entries.items():
        for entry in part:
            if (name, entry.id) not in bad:
                cuts[name] += entry.cuts
                owner |= {cut.id: entry.id for cut in entry.cuts if name == "dev"}
    if not cuts["train"]:
        return []
    found = check(cuts["train"], cuts["dev"])
    return [Problem("dev", owner[name], "label", reason, mend) for name, reason, mend in found]


def _durations(entries: Sequence[Entry], split: str, shortest: float | None, longest: float | None) -> list[Problem]:
    found = []
    for entry in entries:
        if shortest is not None and entry.seconds < shortest:
            reason = f"utterance {entry.id} of {split} is {entry.seconds:.3f} s short"
            found.append(Problem(split, entry.id, "short", reason, f"data.checks.shortest is {shortest} s"))
        elif longest is not None and entry.seconds > longest:
            reason = f"utterance {entry.id} of {split} is {entry.seconds:.1f} s long"
            found.append(Problem(split, entry.id, "long", reason, f"data.checks.longest is {longest} s"))
    return found


def _decoded(entries: Sequence[Entry], split: str, loud: bool) -> list[Problem]:
    """Utterances whose audio cannot be read to its end, though its header can."""

    def decode(name: str) -> SpeechFTError | None:
        entry = by_name[name]
        try:
            if entry.path is not None:
                load_audio(entry.path, entry.start, entry.seconds)
        except SpeechFTError as error:
            return error
        return None

    by_name = {entry.id: entry for entry in entries}
    results = in_threads(f"decoding the audio of {split}", decode, list(by_name), loud)
    return [Problem(split, name, "unreadable", error.what, error.mend) for name, error in results if error is not None]


def duplicates(train: Sequence[Entry], dev: Sequence[Entry], headers: Headers, loud: bool = True) -> list[Problem]:
    """Utterances of train that are in dev too: by their id, as the same part of the same file, or as a file of the same
    bytes. Only files of equal size are compared; what was read of them is kept with the headers. In joint training one
    task's train may have another's dev.
    """
    ids = {entry.id for entry in dev}
    found = {entry.id: f"utterance {entry.id} is in train and in dev" for entry in train if entry.id in ids}
    contents = _same_size(train, dev, headers, loud)
    places: dict[Any, list[Entry]] = defaultdict(list)
    for entry in dev:
        if entry.path is not None:
            places[entry.task, contents.get(entry.path, entry.path)].append(entry)
    for entry in train:
        key = (entry.task, contents.get(entry.path, entry.path)) if entry.path is not None else None
        for other in places.get(key, []):
            if entry.start < other.end and other.start < entry.end:
                found.setdefault(entry.id, f"utterance {entry.id} of train is the same audio as {other.id} of dev")
    headers.save()
    mend = "leave it out of one of them, or set data.checks.duplicates=false"
    return [Problem("train", name, "duplicate", reason, mend) for name, reason in found.items()]


def _same_size(train: Sequence[Entry], dev: Sequence[Entry], headers: Headers, loud: bool) -> Mapping[Path, str]:
    """The hashes of different files whose sizes occur in both splits."""
    sizes: list[dict[int, set[Path]]] = []
    for part in (train, dev):
        found: dict[int, set[Path]] = defaultdict(set)
        for path in {entry.path for entry in part if entry.path is not None}:
            if (size := headers.size(path)) is not None:
                found[size].add(path)
        sizes.append(found)
    wanted: set[Path] = set()
    for size in sizes[0].keys() & sizes[1].keys():
        both = sizes[0][size] | sizes[1][size]
        wanted |= both if len(both) > 1 else set()
    return headers.contents(sorted(wanted), loud) if wanted else {}


def _summary(entries: Sequence[Entry], batch_seconds: float | None) -> dict[str, Any]:
    """Figures of a split; each speed of an utterance counts."""
    seconds = sorted(cut.duration for entry in entries for cut in entry.cuts)
    rates = Counter(entry.info.rate for entry in entries if entry.info is not None)
    speakers = {cut.supervisions[0].speaker for entry in entries for cut in entry.cuts[:1]} - {None}
    longer = sum(one > batch_seconds for one in seconds) if batch_seconds else 0
    return {
        "utterances": len(seconds), "hours": round(sum(seconds) / 3600, 4),
        "shortest": round(seconds[0], 3) if seconds else None,
        "median": round(seconds[len(seconds) // 2], 3) if seconds else None,
        "longest": round(seconds[-1], 3) if seconds else None,
        "rates": {str(rate): count for rate, count in rates.most_common()}, "speakers": len(speakers),
        "longer_than_a_batch": longer,
    }  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(name: str, part: Mapping[str, Any]) -> str:
    rates = part["rates"]
    hours = f"{part['hours']:.2f} h" if part["hours"] >= 0.1 else f"{60 * part['hours']:.1f} min"
    text = (
        f"{name}: {_count(part['utterances'], 'utterance')}, {hours}, {part['shortest']:.2f} to "
        f"{part['longest']:.2f} s (median {part['median']:.2f})"
    )
    khz = [f"{int(rate) / 1000:g} kHz" + (f" ({count})" if len(rates) > 1 else "") for rate, count in rates.items()]
    text += f", {' and '.join(khz)}" if khz else ""
    text += f", {_count(part['speakers'], 'speaker')}" if part["speakers"] else ", speakers not known"
    if part["longer_than_a_batch"]:
        text += f"; {part['longer_than_a_batch']} longer than data.batch_seconds, each a batch of its own"
    return text
