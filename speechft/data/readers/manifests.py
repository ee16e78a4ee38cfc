"""lhotse's manifests, and with them every corpus that `lhotse prepare` knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.errors import SpeechFTError, UsageError

if TYPE_CHECKING:
    from lhotse import CutSet

WHERE = "make them by `lhotse prepare CORPUS FOLDER OUT`, or give the paths of yours"


def lhotse(recordings: str | None = None, supervisions: str | None = None, cuts: str | None = None,
           audio: str | None = None, prefix: str = "") -> list[Any]:  # fmt: skip
    """Recordings and supervisions, or cuts (`*.jsonl.gz`, `.jsonl`, `.json`, `.yaml`), as a cut for each supervision.

    Recordings alone, or cuts without supervisions, are speech without labels. Of a recording's channels all are read
    and averaged. Whatever `custom` holds stays.

    Args:
        recordings, supervisions: manifests that belong together.
        cuts: a manifest of cuts, instead of the two.
        audio: the folder that relative audio paths start from; the present folder by default, as in lhotse.
        prefix: put before every id, to keep several manifests apart.

    Raises:
        UsageError: neither, or both.
        SpeechFTError: missing or damaged manifests, or supervisions of other recordings.
    """
    from lhotse import CutSet

    if (cuts is None) == (recordings is None) or (cuts is not None and supervisions is not None):
        raise UsageError("lhotse manifests: give cuts, or recordings and perhaps supervisions", WHERE)
    given = [cuts] if cuts is not None else [recordings, supervisions]
    absent = [str(path) for path in given if path is not None and not Path(path).expanduser().is_file()]
    if absent:
        raise SpeechFTError(f"lhotse manifests are missing: {', '.join(absent)}", WHERE)
    if cuts is not None:
        found: CutSet = _read(cuts, "CutSet")
    else:
        parts = {"recordings": _read(recordings, "RecordingSet")}
        if supervisions is not None:
            parts["supervisions"] = _read(supervisions, "SupervisionSet")
            known = set(parts["recordings"].ids)
            strange = sorted({one.recording_id for one in parts["supervisions"]} - known)
            if strange:
                raise SpeechFTError(
                    f"{supervisions} speaks of {len(strange)} recordings that {recordings} lacks, such as {strange[0]}",
                    "give the recordings and supervisions of one split",
                )
        found = CutSet.from_manifests(**parts)
        if supervisions is None:
            found = found.map(lambda cut: cut.with_id(cut.recording_id))
        else:
            found = found.filter(lambda cut: len(cut.supervisions) > 0)
    if audio is not None:
        found = found.with_recording_path_prefix(Path(audio).expanduser())
    return [_single(cut, prefix) for whole in found for cut in _utterances(whole)]


def _read(path: Any, kind: str) -> Any:
    import lhotse

    try:
        return getattr(lhotse, kind).from_file(Path(path).expanduser()).to_eager()
    except Exception as error:  # every kind of damage has its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechFTError(f"{path} is no manifest of lhotse's {kind} ({reason[:120]})", WHERE) from error


def _utterances(cut: Any) -> list[Any]:
    """A cut for each supervision, as long as it."""
    if len(cut.supervisions) == 0:
        return [cut]
    only = cut.supervisions[0]
    if len(cut.supervisions) == 1 and only.start <= 0 and only.end >= cut.duration - 1e-3:
        return [cut]
    return list(cut.trim_to_supervisions(keep_overlapping=False, keep_all_channels=True))


def _single(cut: Any, prefix: str) -> Any:
    """Named after its supervision, which is made where there is none: tasks expect one."""
    from lhotse import SupervisionSegment
    from lhotse.utils import fastcopy

    if not cut.supervisions:
        recording = cut.recording_id if cut.has_recording else cut.id
        bare = SupervisionSegment(cut.id, recording, 0.0, cut.duration, getattr(cut, "channel", 0))
        return fastcopy(cut, id=prefix + cut.id, supervisions=[bare])
    return fastcopy(cut, id=prefix + cut.supervisions[0].id)
