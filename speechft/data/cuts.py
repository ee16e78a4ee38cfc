"""From what a reader found to lhotse's cuts, with all that is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechft.data.audio import SAMPLE_RATE, AudioInfo
from speechft.data.headers import Headers
from speechft.data.problems import Problem
from speechft.data.readers.base import Utterance
from speechft.data.text import letters
from speechft.errors import SpeechFTError

_TOLERANCE = 0.06
"""Seconds by which a manifest's length may be off: some decoders of MP3 count the encoder's delay, some do not."""


@dataclass
class Entry:
    """An utterance as it was found.

    Attributes:
        id: as in its corpus.
        cuts: what is trained on: a cut, or one for each speed.
        path, start, end: its audio (seconds), where it is a part of one file.
        info: that file's header.
    """

    id: str
    cuts: list[Any]
    path: Path | None
    start: float
    end: float
    info: AudioInfo | None

    @property
    def task(self) -> str | None:
        """Whose it is, in joint training."""
        return (self.cuts[0].supervisions[0].custom or {}).get("task")

    @property
    def seconds(self) -> float:
        return self.end - self.start


def path_of(item: Any) -> Path | None:
    """The one file that an utterance's audio is in, if it is in one."""
    if isinstance(item, Utterance):
        return item.path
    sources = item.recording.sources if item.has_recording and hasattr(item, "recording") else []
    return Path(sources[0].source) if len(sources) == 1 and sources[0].type == "file" else None


def belonging(item: Any, task: str) -> Any:
    """An utterance or a cut as one task's. Another task may have the same one, so the id says whose it is too."""
    name = f"{task}:{item.id}"
    if isinstance(item, Utterance):
        return replace(item, id=name, labels={**item.labels, "task": task})
    return item.with_id(name).map_supervisions(lambda one: replace(one, custom={**(one.custom or {}), "task": task}))


def entry_of(item: Any, headers: Headers, normalize: bool, speeds: Sequence[float], split: str) -> Entry | Problem:
    """An utterance (or a cut of a reader's own) with its header, as cuts; or what is wrong with it.

    Args:
        item: an `Utterance`, or a cut with one supervision.
        headers: of all files.
        normalize: the transcript as `letters`.
        speeds: a cut for each.
        split: its name, for the problem.
    """
    path = path_of(item)
    info = None
    if path is not None:
        try:
            info = headers[path]
        except SpeechFTError as error:
            kind = "missing" if error.what.endswith("is missing") else "unreadable"
            return Problem(split, item.id, kind, error.what, error.mend)
        if info.samples == 0:
            return Problem(split, item.id, "empty", f"{path} holds no audio", "remove it from the corpus")
    text = item.text if isinstance(item, Utterance) else item.supervisions[0].text
    if normalize and text is not None:
        text = letters(text)
    # A transcript that is empty stays: whether that matters, the task says (`Task.check`).
    if isinstance(item, Utterance):
        assert info is not None
        end = info.seconds if item.end is None else min(item.end, info.seconds)
        start = item.start
        if not 0 <= start < end:
            reason = f"utterance {item.id} ({start} to {item.end} s) is not inside its {info.seconds:.2f} s file"
            return Problem(split, item.id, "outside", reason, "mend its start and end, in seconds")
        cut = _cut(replace(item, text=text), info, end)
    else:
        cut = item if text == item.supervisions[0].text else item.map_supervisions(lambda one: _with_text(one, text))
        start, end = getattr(cut, "start", 0.0), getattr(cut, "start", 0.0) + cut.duration
        if info is not None and not cut.recording.transforms and not _agrees(cut.recording, info):
            said = f"{cut.recording.num_samples} at {cut.recording.sampling_rate}"
            reason = f"{path} has {info.samples} samples at {info.rate} Hz, its manifest says {said}"
            return Problem(split, item.id, "unreadable", reason, "make the manifest again")
        if cut.sampling_rate != SAMPLE_RATE:
            cut = cut.resample(SAMPLE_RATE)
    cuts = [cut if speed == 1.0 else cut.perturb_speed(speed) for speed in speeds]
    return Entry(item.id, cuts, path, start, end, info)


def _agrees(recording: Any, info: AudioInfo) -> bool:
    """Whether a manifest tells of the file that is there."""
    differing = abs(recording.num_samples - info.samples)
    return recording.sampling_rate == info.rate and differing <= _TOLERANCE * info.rate


def _with_text(supervision: Any, text: str | None) -> Any:
    return replace(supervision, text=text)


def _cut(utterance: Utterance, info: AudioInfo, end: float) -> Any:
    from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment

    channels = list(range(info.channels))
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=channels, source=str(utterance.path))],
        sampling_rate=info.rate,
        num_samples=info.samples,
        duration=info.seconds,
        channel_ids=channels,
    )
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=info.seconds,
        channel=0 if info.channels == 1 else channels,
        text=utterance.text,
        speaker=utterance.speaker,
        gender=utterance.gender,
        language=utterance.language,
        custom=dict(utterance.labels) or None,
    )
    # Of several channels all are read, and averaged (`loader.read_cut`).
    kind, channel = (MonoCut, 0) if info.channels == 1 else (MultiCut, channels)
    cut: Any = kind(utterance.id, 0.0, info.seconds, channel, recording=recording, supervisions=[supervision])
    if utterance.start or end < info.seconds:
        cut = cut.truncate(offset=utterance.start, duration=end - utterance.start, preserve_id=True)
    return cut if info.rate == SAMPLE_RATE else cut.resample(SAMPLE_RATE)
