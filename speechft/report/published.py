"""Published scores, and SUPERB_S with its reference points, from files beside this one; each figure has a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.errors import UsageError
from speechft.files import read_json
from speechft.report.columns import known_keys

_FOLDER = Path(__file__).parent / "references"
DEFAULT_REFERENCE = "superb"


@dataclass(frozen=True)
class Source:
    """Where a figure is from.

    Attributes:
        file: what exactly was looked at.
        checked: False: the figure is recalled, nobody compared it with the source.
    """

    title: str
    url: str
    file: str
    checked: bool

    def __str__(self) -> str:
        return f"{self.title} ({', '.join(one for one in (self.url, self.file) if one)})" + (
            "" if self.checked else ": recalled, unchecked"
        )


@dataclass(frozen=True)
class PublishedRow:
    """Somebody else's scores: column key -> per cent, and where each is from.

    Attributes:
        note: what must be said beside the sources.
    """

    name: str
    values: Mapping[str, float]
    sources: Mapping[str, Source]
    note: str = ""


@dataclass(frozen=True)
class Reference:
    """The two ends of the scale of SUPERB_S.

    Attributes:
        points: column key -> score of FBANK, score of the state of the art, in per cent.
        sources: of the points, each once.
        unchecked: keys of points of which a figure is recalled. One without a source is the word of whoever wrote it.
    """

    name: str
    about: str
    points: Mapping[str, tuple[float, float]]
    sources: Sequence[Source]
    unchecked: Sequence[str] = ()


def published_rows() -> list[PublishedRow]:
    """The rows of `references/published.json`."""
    record = read_json(_FOLDER / "published.json")
    sources = {name: _source(one) for name, one in record["sources"].items()}
    return [
        PublishedRow(
            row["name"],
            row["metrics"],
            {key: sources[row.get("sources", {}).get(key, row["source"])] for key in row["metrics"]},
            row.get("note", ""),
        )
        for row in record["rows"]
    ]


def references() -> list[str]:
    """Names of the reference files that come with speechft."""
    return sorted(path.stem for path in _FOLDER.glob("*.json") if path.stem != "published")


def read_reference(name: str | Path) -> Reference:
    """A reference by its name, or a file of the same form: `{"points": {"pr.per": {"baseline": 82.0, "sota": 3.5}}}`.

    Raises:
        UsageError: neither a name nor a file; a metric or a value that makes no sense.
    """
    path = _FOLDER / f"{name}.json" if str(name) in references() else Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"{name} is no reference of SUPERB_S", f"known: {', '.join(references())}, or a JSON file")
    record = read_json(path)
    raw = record.get("points") if isinstance(record, dict) else None
    if not isinstance(raw, dict) or not raw:
        raise UsageError(f"{path} has no points", "for the form see speechft/report/references/superb.json")
    sources = {key: _source(one) for key, one in (record.get("sources") or {}).items()}
    points: dict[str, tuple[float, float]] = {}
    used: list[Source] = []
    unchecked: list[str] = []
    for key, one in raw.items():
        if key not in known_keys():
            raise UsageError(f"{path} has a point for {key!r}", f"known: {', '.join(known_keys())}")
        try:
            ends = float(one["baseline"]), float(one["sota"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: {key} needs two numbers, baseline and sota", "in per cent") from error
        if not abs(ends[1] - ends[0]) > 0:
            raise UsageError(f"{path}: baseline and sota of {key} are the same", "give two different numbers")
        points[key] = ends
        named = [str(one[name]) for name in ("source", "baseline_source") if one.get(name)]
        own = [sources[name] for name in named if name in sources]
        used += [source for source in own if source not in used]
        if any(not source.checked for source in own):
            unchecked.append(key)
    return Reference(str(record.get("name", path.stem)), str(record.get("about", "")), points, used, unchecked)


def _source(record: Mapping[str, Any]) -> Source:
    return Source(
        str(record.get("title", "")), str(record.get("url", "")), str(record.get("file", "")),
        bool(record.get("checked", False)),
    )  # fmt: skip


def superb_s(values: Mapping[str, Any], reference: Reference, keys: Sequence[str]) -> Any:
    """SUPERB_S = 1000 / |T| · Σ_t 1/|M_t| · Σ_m (s − s_FBANK) / (s_SOTA − s_FBANK).

    Each metric becomes points between FBANK (0) and the state of the art (1000); points are averaged inside a task,
    then over tasks (the SUPERB challenges' superb_s; Speech-FT, 2502.12672, equations 4 and 5).

    Args:
        values: column key -> score in per cent; numbers, or arrays `[draws]`.
        reference: the two ends.
        keys: the columns that count, all of them in `values` and in `reference`.

    Returns:
        A number or an array, as `values` are.
    """
    tasks: dict[str, list[Any]] = {}
    for key in keys:
        baseline, sota = reference.points[key]
        tasks.setdefault(key.partition(".")[0], []).append(1000 * (values[key] - baseline) / (sota - baseline))
    return sum(sum(points) / len(points) for points in tasks.values()) / len(tasks)
