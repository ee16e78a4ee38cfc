"""From a corpus on disk to cuts: one function per layout, all giving a lhotse `CutSet`.

A cut carries its transcript in `supervisions[0].text`, its speaker in `.speaker` and any other label (such as `phones`)
in `.custom`. Corpora are described by entries of `data.train` and `data.dev` in the configuration.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.data.audio import SAMPLE_RATE, audio_info
from speechft.data.lexicon import pronounce, read_lexicon
from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet


@dataclass(frozen=True)
class Utterance:
    """One line of a corpus: where the audio is (`start` to `end` in seconds; None: to its end), and what is known."""

    id: str
    path: Path
    text: str | None = None
    speaker: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    start: float = 0.0
    end: float | None = None


def load_cuts(sources: Iterable[Mapping[str, Any]], skip_bad: bool = False) -> tuple[CutSet, list[tuple[str, str]]]:
    """Read the corpora of one split.

    Args:
        sources: entries such as `{kind: librispeech, root: ..., split: train-clean-100}`; any kind also takes `limit`,
            `speaker_fraction`, `min_seconds`, `max_seconds`, `task` (whose it is, in joint training), and `speeds`:
            every utterance once at each of these speeds, pitch included (`[0.9, 1.0, 1.1]`: Kaldi's speed perturbation,
            Ko et al., Interspeech 2015).
        skip_bad: leave out unreadable audio and empty transcripts instead of stopping at the first.

    Returns:
        The cuts (16 kHz mono by resampling on reading), and what was left out: (id, reason).

    Raises:
        UsageError: an unknown kind or option.
        SpeechFTError: a missing folder, unreadable audio, an empty transcript, or nothing left.
    """
    from lhotse import CutSet

    cuts, bad = [], []
    for source in sources:
        options = dict(source)
        kind = options.pop("kind", None)
        limit, fraction = options.pop("limit", None), options.pop("speaker_fraction", None)
        shortest, longest = options.pop("min_seconds", 0.0), options.pop("max_seconds", None)
        speeds, task = _speeds(options.pop("speeds", None)), options.pop("task", None)
        if kind not in KINDS:
            raise UsageError(f"unknown corpus kind {kind!r}", f"known: {', '.join(sorted(KINDS))}")
        try:
            utterances = KINDS[kind](**options)
        except TypeError as error:
            raise UsageError(f"corpus kind {kind}: {error}", "check the options of this entry of data") from error
        if fraction is not None:
            low, high = fraction
            utterances = [u for u in utterances if low <= speaker_position(u.speaker or u.id) < high]
        utterances = utterances[:limit]
        if task is not None:  # the same utterance may serve several tasks, so their ids must differ
            utterances = [replace(u, id=f"{task}:{u.id}", labels={**u.labels, "task": task}) for u in utterances]
        for utterance in utterances:
            try:
                cut = _cut(utterance)
            except SpeechFTError as error:
                if not skip_bad:
                    raise
                bad.append((utterance.id, str(error)))
                continue
            if shortest <= cut.duration and (longest is None or cut.duration <= longest):
                cuts += [cut if speed == 1.0 else cut.perturb_speed(speed) for speed in speeds]
    if not cuts:
        raise SpeechFTError("the corpus holds no usable utterance", "check the data section of the configuration")
    ids = [cut.id for cut in cuts]
    if len(set(ids)) != len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise SpeechFTError(f"utterance {twice} is in the corpus twice", "give every utterance an id of its own")
    return CutSet.from_cuts(cuts), bad


def _speeds(value: Any) -> list[float]:
    speeds = [1.0] if value is None else list(value)
    if not speeds or not all(isinstance(speed, (int, float)) and 0.5 <= speed <= 2.0 for speed in speeds):
        raise UsageError(f"speeds {value} of a corpus", "give factors from 0.5 to 2, such as [0.9, 1.0, 1.1]")
    return [float(speed) for speed in speeds]


def speaker_position(speaker: str) -> float:
    """A speaker's place in [0, 1), fixed by the name: a way to split any corpus by speaker that needs no list."""
    return int(hashlib.sha256(speaker.encode()).hexdigest()[:12], 16) / 16**12


def _cut(utterance: Utterance) -> Any:
    from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment

    info = audio_info(utterance.path)
    if info.samples == 0:
        raise SpeechFTError(f"{utterance.path} holds no audio", "remove it from the corpus, or set data.skip_bad=true")
    if utterance.text is not None and not utterance.text.strip():
        raise SpeechFTError(
            f"utterance {utterance.id} has an empty transcript", "mend the transcript, or set data.skip_bad=true"
        )
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=list(range(info.channels)), source=str(utterance.path))],
        sampling_rate=info.rate,
        num_samples=info.samples,
        duration=info.seconds,
        channel_ids=list(range(info.channels)),
    )
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=info.seconds,
        channel=0 if info.channels == 1 else recording.channel_ids,
        text=utterance.text,
        speaker=utterance.speaker,
        custom=dict(utterance.labels) or None,
    )
    # Of several channels all are read, and averaged (`loader.read_cut`).
    kind, channel = (MonoCut, 0) if info.channels == 1 else (MultiCut, recording.channel_ids)
    cut = kind(utterance.id, 0.0, info.seconds, channel, recording=recording, supervisions=[supervision])
    if utterance.start or utterance.end is not None:
        end = info.seconds if utterance.end is None else min(utterance.end, info.seconds)
        if not 0 <= utterance.start < end:
            raise SpeechFTError(
                f"utterance {utterance.id} ({utterance.start} to {utterance.end} s) is not inside its "
                f"{info.seconds:.2f} s file",
                "mend its start and end, in seconds",
            )
        cut = cut.truncate(offset=utterance.start, duration=end - utterance.start, preserve_id=True)
    return cut if info.rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)


def librispeech(root: str, split: str) -> list[Utterance]:
    """LibriSpeech's layout: `SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTT.flac` and `SPEAKER-CHAPTER.trans.txt`."""
    folder = _folder(Path(root).expanduser() / split, "a LibriSpeech split")
    utterances = []
    for transcript in sorted(folder.glob("*/*/*.trans.txt")):
        for line in transcript.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if name:
                path = transcript.parent / f"{name}.flac"
                utterances.append(Utterance(name, path, text, transcript.parent.parent.name))
    if not utterances:
        raise SpeechFTError(f"{folder} holds no transcripts (*.trans.txt)", "give LibriSpeech's folder as root")
    return utterances


def tsv(path: str, audio: str | None = None, text: str | None = "text", where: Mapping[str, Any] | None = None,
        prefix: str = "") -> list[Utterance]:  # fmt: skip
    """A table with a header: columns `id`, `path`, and any of `start` and `end` (seconds, for parts of long files),
    `speaker`, a transcript column, other labels.

    Args:
        path: a tab-separated file.
        audio: the folder that `path` entries start from; the table's own folder by default.
        text: the transcript's column; null when there is none.
        where: keep lines whose columns have these values.
        prefix: put before every id, to keep several tables apart.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise SpeechFTError(f"corpus table {file} is missing", "check the path")
    base = Path(audio).expanduser() if audio else file.parent
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if rows and not {"id", "path"} <= rows[0].keys():
        raise SpeechFTError(f"{file} has no columns id and path", "its first line must name the columns, tab-separated")
    for column in where or {}:
        if rows and column not in rows[0]:
            raise SpeechFTError(f"{file} has no column {column}", f"its columns: {', '.join(rows[0])}")
    kept = [row for row in rows if all(str(row[key]) == str(value) for key, value in (where or {}).items())]
    special = {"id", "path", "speaker", "start", "end", text}
    return [
        Utterance(
            prefix + row["id"], base / row["path"], row.get(text) if text else None, row.get("speaker"),
            {key: value for key, value in row.items() if key not in special and value is not None},
            _seconds(row, "start") or 0.0, _seconds(row, "end"),
        )
        for row in kept
    ]  # fmt: skip


def _seconds(row: Mapping[str, str], column: str) -> float | None:
    value = row.get(column)
    if value in (None, ""):
        return None
    try:
        return float(str(value))
    except ValueError as error:
        raise SpeechFTError(f"utterance {row['id']} has {column} {value!r}", "give it in seconds") from error


def synthetic(split: str, size: str = "demo", seed: int = 0) -> list[Utterance]:
    """A LibriSpeech-like split of the synthetic corpus, made at first use, with the phones of its own lexicon."""
    from speechft.data.synthetic.corpus import make_corpus

    corpus = make_corpus(size, seed)
    lexicon = read_lexicon(corpus.lexicon)
    return [
        replace(utterance, labels={"phones": " ".join(pronounce(utterance.text or "", lexicon))})
        for utterance in librispeech(str(corpus.librispeech), split)
    ]


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise SpeechFTError(f"{what} is missing: {path}", "check the data section, or that the drive is mounted")
    return path


KINDS: dict[str, Callable[..., list[Utterance]]] = {"librispeech": librispeech, "tsv": tsv, "synthetic": synthetic}
"""Corpus kinds by name; a new layout is one function and one line here."""
