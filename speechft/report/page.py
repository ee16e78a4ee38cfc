"""`report.md` from `report.json`: tables, footnotes, what was compared and where the figures are from.

What the page (`html.py`) says in the same words, it takes from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechft.analysis.table import about, table

UNCHECKED = "°"


def page(report: Mapping[str, Any]) -> str:
    """The whole text."""
    parts = ["# SUPERB scores", tables(report), "\n\n".join(how(report))]
    for kind, head in (
        ("alpha", ""),
        ("choice", "## How α was chosen"),
        ("drift", "## How far the models moved"),
        ("weights", "## Learned layer weights"),
    ):
        pictures = [one for one in report["pictures"] if one["kind"] == kind]
        if pictures:
            parts += [head, *(_drift(one) for one in report["drift"] if kind == "drift")]
            parts += [_choice(one) for one in report["choices"] if kind == "choice"]
            parts += [f"![{one['title']}]({one['file']})\n\n{one['caption']}" for one in pictures]
    if report["published"]:
        lines = [f"- {told}: {', '.join(rows)}" for told, rows in sources(report).items()]
        parts.append("Published rows, on the official corpora by the official recipe:\n\n" + "\n".join(lines))
    found = sorted({folder for row in report["rows"] for folder in row["results"]})
    parts.append("Read from:\n\n" + "\n".join(f"- `{folder}`" for folder in found))
    parts.append("Everything, with each row's seeds, recipes and weights, is in `report.json`.")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def tables(report: Mapping[str, Any]) -> str:
    """The scores, the differences, and what must be said beside them."""
    said = reading(report)
    spoken = f"From these intervals alone: {' '.join(said)}" if said else ""
    parts = [_scores(report), _differences(report), spoken, "\n".join(footnotes(report))]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _scores(report: Mapping[str, Any]) -> str:
    columns = report["columns"]
    with_score = bool(report["superb_s"]["columns"])
    head = ["", *(column["title"] for column in columns), *(["SUPERB_S ↑"] if with_score else [])]
    rows = []
    for row in report["rows"]:
        name = f"**{row['name']}**" + (" (pre-trained)" if row["pretrained"] else "")
        cells = [_score(row["cells"].get(column["key"])) for column in columns]
        rows.append([name, *cells, *([_superb(row["superb_s"])] if with_score else [])])
    for row in report["published"]:
        cells = [_published(row, column["key"]) for column in columns]
        if with_score:
            cells.append("–" if row["superb_s"] is None else f"{row['superb_s']:.0f}")
        rows.append([f"_{row['name']}_", *cells])
    return _table(head, rows)


def _score(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "–"
    text = f"{cell['mean']:.2f}"
    if cell["spread"] is not None:
        text += f" ± {cell['spread']:.2f}"
    text += _interval(cell["interval"], 2)
    return text + (f" †{cell['mark']}" if cell["mark"] else "")


def _superb(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    text = f"{score['value']:.0f}" + _interval(score["interval"], 0)
    return text + "".join(f" †{mark}" for mark in score["marks"])


def _interval(ends: Sequence[float] | None, digits: int) -> str:
    return "" if ends is None else f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _published(row: Mapping[str, Any], key: str) -> str:
    if key not in row["values"]:
        return "–"
    return f"{row['values'][key]:.2f}" + ("" if row["sources"][key]["checked"] else UNCHECKED)


def _differences(report: Mapping[str, Any]) -> str:
    compared = [row for row in report["rows"] if row["base"] is not None]
    if not compared:
        return ""
    bases = list(dict.fromkeys(row["base"] for row in compared))
    columns = report["columns"]
    with_score = bool(report["superb_s"]["columns"])
    head = ["", *(column["title"] for column in columns), *(["SUPERB_S ↑"] if with_score else [])]
    rows = []
    for row in compared:
        name = f"**{row['name']}**" + (f" (against {row['base']})" if len(bases) > 1 else "")
        cells = [_change(row["cells"].get(column["key"]), 2) for column in columns]
        rows.append([name, *cells, *([_change(row["superb_s"], 0)] if with_score else [])])
    title = f"Differences to {bases[0]}" if len(bases) == 1 else "Differences, each to its own pre-trained upstream"
    return f"{title}, in points, with 95 % intervals:\n\n{_table(head, rows)}"


def _change(cell: Mapping[str, Any] | None, digits: int) -> str:
    if cell is None:
        return "–"
    change = cell["difference"]
    if change is None:
        marks = [cell["mark"]] if cell.get("mark") else cell.get("marks", [])
        return " ".join(f"†{mark}" for mark in marks) or "–"
    text = f"{change['mean']:+.{digits}f}"
    if change["interval"] is not None:
        low, high = change["interval"]
        text += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return text


def reading(report: Mapping[str, Any]) -> list[str]:
    """What the differences say, from their intervals alone, a sentence for each row."""
    sentences = []
    for row in report["rows"]:
        found: dict[str, list[str]] = {}
        for column in report["columns"]:
            change = row["cells"].get(column["key"], {}).get("difference")
            if change and change["verdict"]:
                found.setdefault(change["verdict"], []).append(_spoken(column["title"]))
        if found:
            said = [f"{word} in {', '.join(found[word])}" for word in ("better", "worse") if word in found]
            sentences.append(f"{row['name']}: {'; '.join(said) or 'no clear difference'}.")
    return sentences


def _spoken(title: str) -> str:
    """`SID, accuracy % ↑` -> `SID accuracy`."""
    return title.split(" %")[0].split(" ×")[0].replace(",", "")


def footnotes(report: Mapping[str, Any]) -> list[str]:
    """What must be said below the tables, a line each."""
    lines = []
    if report["footnotes"]:
        lines.append("† made by another recipe, so not comparable with the row it would be compared with:")
        lines += [f"- †{letter} {text}" for letter, text in report["footnotes"].items()]
    recalled = any(not one["checked"] for row in report["published"] for one in row["sources"].values())
    if recalled or report["superb_s"]["unchecked"]:
        lines.append(f"{UNCHECKED} recalled, unchecked.")
    if report["off_official"]:
        tasks = [f"{task.upper()} ({'; '.join(phrases)})" for task, phrases in report["off_official"].items()]
        lines.append(f"Not as in SUPERB, so neither published rows nor SUPERB_S are a yardstick: {'; '.join(tasks)}.")
    return lines + [f"Note: {note}." for note in report["notes"]]


def how(report: Mapping[str, Any]) -> list[str]:
    """How the figures were made, a paragraph each."""
    counts = {len(cell["values"]) for row in report["rows"] for cell in row["cells"].values()}
    several, most = max(counts, default=1) > 1, max(counts, default=1)
    seeds = f"{min(count for count in counts if count > 1)} to {most}" if len(counts - {1}) > 1 else str(most)
    spread = f" ± is half the range over {seeds} seeds, of which the mean is shown; intervals do not contain it."
    lines = [
        f"In brackets: 95 % percentile intervals of {report['bootstrap']['draws']} bootstrap draws of the test "
        "utterances (trials for ASV and queries for QbE, as if they were independent); differences are paired, "
        "utterance by utterance." + (spread if several else "")
    ]
    score = report["superb_s"]
    if score["columns"]:
        ends = [
            f"{key} {low:g} and {high:g}{UNCHECKED if key in score['unchecked'] else ''}"
            for key, (low, high) in score["points"].items()
        ]
        meaning = f"{score['about'].rstrip('.')}. " if score["about"] else ""
        lines.append(
            f"SUPERB_S over {', '.join(task.upper() for task in score['tasks'])}, reference `{score['reference']}`: "
            f"0 and 1000 points are {'; '.join(ends)}. {meaning}"
            f"Source: {'; '.join(score['sources']) or 'none given'}."
        )
    if score["left_out"]:
        reasons = [f"{task.upper()} ({why})" for task, why in score["left_out"].items()]
        lines.append(f"Not in SUPERB_S, which needs SUPERB's corpora and a score of every row: {'; '.join(reasons)}.")
    return lines


def sources(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Where the published rows are from: source -> rows, with what must be said beside them."""
    names: dict[str, list[str]] = {}
    for row in report["published"]:
        for one in row["sources"].values():
            told = f"{one['title']} ({one['url']}; {one['file']})" + ("" if one["checked"] else ": recalled, unchecked")
            name = f"{row['name']} ({row['note']})" if row["note"] else row["name"]
            if name not in names.setdefault(told, []):
                names[told].append(name)
    return names


def _choice(one: Mapping[str, Any]) -> str:
    return "\n\n".join([f"{one['run']}:", _table(one["head"], one["body"]), " ".join(one["told"])])


def _drift(one: Mapping[str, Any]) -> str:
    head, rows = table(one)
    notes = [f"Note: {note}." for note in one["notes"]]
    return "\n\n".join([_table(head, rows), about(one), *notes])
