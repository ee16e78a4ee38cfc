"""From folders to the rows of a table: what was scored, which results are seeds of one model, which recipes differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError, UsageError
from speechft.files import sha256_json
from speechft.report.collect import Score, read_metrics
from speechft.report.columns import known_keys
from speechft.report.lineage import Lineage, Lineages
from speechft.report.naming import common
from speechft.report.recipes import differences, recipe
from speechft.runs import is_run, runs_root

_TASKS = {key.partition(".")[0] for key in known_keys()}


@dataclass
class Entry:
    """One `OUT/MODEL` folder.

    Attributes:
        folder: the folder.
        scores: column key -> score.
        identity: the scored upstream's, from its results.
        lineage: where it comes from, if that is known.
    """

    folder: Path
    scores: dict[str, Score]
    identity: Mapping[str, Any]
    lineage: Lineage | None = None

    @property
    def weights(self) -> str:
        return str(self.identity.get("sha256"))

    @property
    def hearing(self) -> dict[str, Any]:
        """How it hears: input normalisation, padding, pieces, family; all of its identity but names and weights."""
        return {key: value for key, value in self.identity.items() if key not in ("name", "source", "sha256")}


@dataclass
class Row:
    """One row of the table: one model, or the seeds of one experiment.

    Attributes:
        name: as in the table.
        entries: the folders it is made of.
        pretrained: whether it is an upstream that others were fine-tuned from.
        scores: column key -> one score per seed (of the evaluation, or of the fine-tuning).
    """

    name: str
    entries: list[Entry]
    pretrained: bool = False
    scores: dict[str, list[Score]] = field(default_factory=dict)

    @property
    def lineage(self) -> Lineage | None:
        return self.entries[0].lineage

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(entry.folder.name for entry in self.entries))


@dataclass
class Found:
    """Everything that was read.

    Attributes:
        rows: pre-trained upstreams first, then by run and α, then as they were given.
        home: where the report of these folders belongs.
        notes: what could not be read, a line each.
    """

    rows: list[Row]
    home: Path
    notes: list[str]


def collect(paths: Sequence[Path], lineages: Lineages, base: str | None = None) -> Found:
    """Read all results in some folders.

    Args:
        paths: runs, folders of results (`OUT`), or folders of one model's (`OUT/MODEL`).
        lineages: filled with what the runs tell.
        base: name of the model that others are compared with; looked for in `runs/superb` too.

    Raises:
        UsageError: a path that does not exist.
        SpeechFTError: no finished evaluation in a folder.
    """
    notes: list[str] = []
    entries: list[Entry] = []
    paths = [path.expanduser().resolve() for path in paths]
    for path in paths:
        found = _entries(path, lineages, notes)
        if not found:
            raise SpeechFTError(
                f"{path} holds no finished evaluation{''.join(f' ({note})' for note in notes)}",
                f"score it first: speechft eval superb {path if is_run(path) else 'UPSTREAM'}",
            )
        entries += [one for one in found if all(one.folder != other.folder for other in entries)]
    for entry in entries:
        entry.lineage = lineages.of(entry.identity)
    entries += _bases_elsewhere(entries, lineages, base, notes)
    rows = _named(_grouped(entries, lineages))
    return Found(_sorted(rows), _home(paths[0]), notes)


def _home(path: Path) -> Path:
    return path if is_run(path) or (path / "superb").is_dir() or not _result_files(path) else path.parent


def _entries(path: Path, lineages: Lineages, notes: list[str]) -> list[Entry]:
    if not path.is_dir():
        raise UsageError(f"{path} does not exist", "give a run's folder, or a folder of results")
    lineages.look_at(path)
    for run in sorted(path.glob("*/pretrained.json")):  # a sweep's or a demo's folder
        lineages.look_at(run.parent)
    inside = path / "superb" if (path / "superb").is_dir() else path
    folders = [inside] if _result_files(inside) else sorted(one for one in inside.iterdir() if one.is_dir())
    if not _result_files(inside) and inside == path:  # a sweep: each run has results of its own
        folders += sorted(model for model in path.glob("*/superb/*") if model.is_dir())
    entries = [_entry(folder, notes) for folder in folders if not folder.name.startswith(".")]
    found = [entry for entry in entries if entry is not None]
    return found or (_scored_elsewhere(path, notes) if is_run(path) else [])


def _elsewhere() -> list[Path]:
    """The folders in `runs/superb`, where `eval superb` puts results of several upstreams."""
    others = runs_root() / "superb"
    found = sorted(others.iterdir()) if others.is_dir() else []
    return [one.resolve() for one in found if one.is_dir() and not one.name.startswith(".")]


def _scored_elsewhere(run: Path, notes: list[str]) -> list[Entry]:
    """A run's models that were scored beside other upstreams."""
    entries = [entry for folder in _elsewhere() if (entry := _entry(folder, [])) is not None]
    found = [one for one in entries if Path(str(one.identity.get("source"))).is_relative_to(run)]
    if found:
        notes.append(f"the scores of {run.name} are from {found[0].folder.parent}")
    return found


def _result_files(folder: Path) -> list[Path]:
    """`TASK.json` files; other JSON beside them (a model's configuration, a report) is none."""
    return [
        path for path in sorted(folder.glob("*.json"))
        if not path.name.startswith(".")
        and (path.stem in _TASKS or path.with_suffix(".utterances.jsonl").is_file())
    ]  # fmt: skip


def _entry(folder: Path, notes: list[str]) -> Entry | None:
    scores: dict[str, Score] = {}
    for path in _result_files(folder):
        try:
            scores.update(read_metrics(path))
        except SpeechFTError as error:
            notes.append(f"left out: {error}")
    if not scores:
        return None
    for key in [key for key, score in scores.items() if score.record.get("upstream") is None]:
        notes.append(f"left out: {scores[key].path} does not say which upstream it is of")
        del scores[key]
    keys = {key: _key(score.record["upstream"]) for key, score in scores.items()}
    if len(set(keys.values())) > 1:  # the model was changed between two tasks: the newest weights are the row
        newest = max(scores.values(), key=lambda score: score.path.stat().st_mtime)
        for key in [key for key in keys if keys[key] != _key(newest.record["upstream"])]:
            notes.append(f"left out: {scores[key].path} is of other weights than {newest.path}; evaluate it again")
            del scores[key]
    return Entry(folder, scores, next(iter(scores.values())).record["upstream"]) if scores else None


def _key(identity: Mapping[str, Any]) -> str:
    """What makes two scored upstreams one model (`Identity.key` of speechft/upstreams/base.py)."""
    return sha256_json({key: value for key, value in identity.items() if key not in ("name", "source")})


def _bases_elsewhere(
    entries: list[Entry], lineages: Lineages, base: str | None, notes: list[str]
) -> list[Entry]:  # fmt: skip
    """Pre-trained upstreams that were scored beside the runs, in `runs/superb`, where `eval superb NAME` puts them."""
    wanted = {entry.lineage.pretrained for entry in entries if entry.lineage} - {entry.weights for entry in entries}
    named = base is not None and all(base not in _names_of(entry) for entry in entries)
    if not (wanted or named):
        return []
    found = []
    for folder in _elsewhere():
        if any(folder == entry.folder for entry in entries):
            continue
        entry = _entry(folder, [])
        if entry is not None and (entry.weights in wanted or (named and base in _names_of(entry))):
            entry.lineage = lineages.of(entry.identity)
            notes.append(f"the row to compare with is from {entry.folder}")
            found.append(entry)
    return found


def _names_of(entry: Entry) -> set[str]:
    return {entry.folder.name, str(entry.identity.get("name")), str(entry.identity.get("source"))}


def _grouped(entries: Iterable[Entry], lineages: Lineages) -> list[Row]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        known = entry.lineage
        key = sha256_json([entry.hearing, known.family if known else entry.weights, known.alpha if known else None])
        groups.setdefault(key, []).append(entry)
    rows = []
    for members in groups.values():
        clusters = _of_one_recipe(members)
        names = [_row_name(cluster, lineages) for cluster in clusters]
        for name, cluster in zip(names, clusters, strict=True):
            row = Row(name, cluster, cluster[0].weights in lineages.pretrained)
            if names.count(name) > 1:
                row.name += f" [{cluster[0].folder.parent.name}]"
            row.scores = _by_column(cluster)
            rows.append(row)
    return rows


def _row_name(entries: list[Entry], lineages: Lineages) -> str:
    """What the models share; of a pre-trained upstream its own name, though it was scored as a merge of α 0."""
    upstream = lineages.pretrained.get(entries[0].weights)
    own = [one for one in entries if not (Path(str(one.identity.get("source"))) / "merge.json").is_file()]
    if upstream is not None and not own:
        return Path(upstream).name
    return common([one.folder.name for one in (entries if upstream is None else own)])


def _of_one_recipe(entries: list[Entry]) -> list[list[Entry]]:
    """Results of one model by different recipes are rows of their own, never averaged."""
    clusters: list[tuple[dict[str, dict[str, Any]], list[Entry]]] = []
    for entry in entries:
        recipes = {score.task: recipe(score.record) for score in entry.scores.values()}
        for known, members in clusters:
            if not any(differences(known[task], one) for task, one in recipes.items() if task in known):
                known.update({task: {**known.get(task, {}), **one} for task, one in recipes.items()})
                members.append(entry)
                break
        else:
            clusters.append((dict(recipes), [entry]))
    return [members for _, members in clusters]


def _by_column(entries: list[Entry]) -> dict[str, list[Score]]:
    scores: dict[str, list[Score]] = {}
    seen: set[tuple[str, str, int]] = set()
    for entry in entries:
        for key, score in entry.scores.items():
            mark = (key, entry.weights, score.seed)
            if mark not in seen:  # the same model with the same seed, evaluated in two places, counts once
                seen.add(mark)
                scores.setdefault(key, []).append(score)
    return scores


def _named(rows: list[Row]) -> list[Row]:
    """No two rows share a name."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.name] = seen.get(row.name, 0) + 1
        if seen[row.name] > 1:
            row.name = f"{row.name} ({seen[row.name]})"
    return rows


def _sorted(rows: list[Row]) -> list[Row]:
    order: dict[str, int] = {}
    for row in rows:
        if row.lineage:
            order.setdefault(row.lineage.family, len(order))

    def place(item: tuple[int, Row]) -> tuple[int, int, float, int]:
        number, row = item
        known = row.lineage
        first = 2 if not row.pretrained else 1 if known else 0  # what was fine-tuned itself comes after its upstream
        return (first, order[known.family] if known else len(order), known.alpha if known else 0.0,
                number)  # fmt: skip

    return [row for _, row in sorted(enumerate(rows), key=place)]
