"""The words after `scripts/reproduce`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from speechft.cli.arguments import Parser, result
from speechft.cli.main import VERBS, calm_libraries, guarded
from speechft.console import duration, say
from speechft.errors import SpeechFTError, UsageError
from speechft.reproduce.plan import Stage, plan
from speechft.reproduce.request import Request, read_request
from speechft.reproduce.rows import Row, chosen, rows
from speechft.runs import runs_root

if TYPE_CHECKING:
    from speechft.reproduce.cost import Cost

_EPILOG = """examples:
  scripts/reproduce --list
  scripts/reproduce hubert-asr hubert-asr-regular --dry-run data.tedlium3=/data/TEDLIUM_release-3 \\
      data.librispeech=/data/LibriSpeech data.lexicon=/data/lexicon.txt data.voxceleb1=/data/VoxCeleb1 \\
      data.iemocap=/data/IEMOCAP_full_release data.snips=/data/SNIPS
  scripts/reproduce --all --paths my-paths.yaml train.trainer.precision=bf16 eval.frames_dtype=float16
  scripts/reproduce hubert-er --scale 0.001 --tasks er data.iemocap=...     the whole chain in minutes, no result

A row's stages are commands of speechft, printed as they are run: train, merge, eval superb (the model and its
pre-trained upstream), and one report for all rows of a scenario, published rows beside them. What is finished is not
done again.
--dry-run says what is missing, how long it takes on this device (from a timed step of every kind) and what disk, and
prints the commands. FILE of --paths has the same in sections: {data: {tedlium3: ...}, upstream: {decoar2: ...}}."""


def main(words: Sequence[str]) -> int:
    """Do it; returns the exit code: 0 done, 1 failed or something is missing, 2 wrong use."""
    return guarded(_command, words)


def _command(words: Sequence[str]) -> int:
    parser = Parser("reproduce", "The paper's rows, from training to the report.", _EPILOG)
    parser.prog = "scripts/reproduce"
    parser.add_argument("words", nargs="*", metavar="ROW|override", help="rows, and data.NAME=PATH and such")
    parser.add_argument("--all", action="store_true", help="all rows")
    parser.add_argument("--list", action="store_true", help="name the rows, and do nothing")
    parser.add_argument("--deviations", action="store_true", help="in what all rows differ from the published ones")
    parser.add_argument("--dry-run", action="store_true", help="check, estimate, and print the commands")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where everything goes (default: runs/reproduce)")
    parser.add_argument("--paths", metavar="FILE", type=Path, help="YAML with the paths and overrides")
    parser.add_argument("--tasks", metavar="A,B", help="of SUPERB (default: pr,asr,sid,er,sf)")
    parser.add_argument(
        "--scale", metavar="F", type=float, default=1.0, help="share of all numbers of steps, to try it"
    )
    parser.add_argument("--no-measure", action="store_true", help="with --dry-run: time nothing")
    arguments = parser.parse_intermixed_args(list(words))
    if arguments.list:
        known = rows()
        result(arguments.json, {name: row.about for name, row in known.items()}, _listing(list(known.values())))
        return 0
    if arguments.deviations:
        from speechft.reproduce.deviations import tables

        result(arguments.json, {"markdown": tables()}, tables().splitlines())
        return 0
    names = [word for word in arguments.words if "=" not in word]
    if bool(names) == arguments.all:
        raise UsageError("name rows, or say --all", "scripts/reproduce --list names them all")
    picked = chosen(list(rows()) if arguments.all else names)
    request = read_request(
        [word for word in arguments.words if "=" in word], arguments.out or runs_root() / "reproduce",
        arguments.tasks.split(",") if arguments.tasks else None, arguments.scale, arguments.paths,
    )  # fmt: skip
    calm_libraries()
    stages = plan(picked, request)
    if arguments.dry_run:
        return _dry_run(picked, stages, request, not arguments.no_measure, arguments.json)
    _run(stages, request)
    return 0


def _listing(known: Sequence[Row]) -> list[str]:
    width = max(len(row.name) for row in known)
    return [f"{row.name:{width}}  {row.about}" for row in known]


def _dry_run(picked: Sequence[Row], stages: Sequence[Stage], request: Request, measure: bool, as_json: bool) -> int:
    from speechft.reproduce.check import survey
    from speechft.reproduce.cost import Cost, Costs, space
    from speechft.reproduce.deviations import SHARED, of_rows
    from speechft.reproduce.finished import finished

    done = [finished(stage) for stage in stages]
    found = survey([stage for stage, over in zip(stages, done, strict=True) if not over], request)
    costs = Costs(found, measure)
    each = [Cost(0.0) if over else costs.of(stage) for stage, over in zip(stages, done, strict=True)]
    disk, too_little = space(stages, each, done, request)
    problems = [*found.problems, *too_little]
    known = sum(cost.seconds or 0.0 for cost in each)
    unknown = any(cost.incomplete for cost in each)
    device = _device()
    deviations = of_rows(picked, request)
    value = {
        "rows": [row.name for row in picked], "problems": problems, "notes": found.notes, "device": device,
        "hours": known / 3600, "hours_complete": not unknown, "disk": disk, "deviations": deviations,
        "stages": [{"kind": stage.kind, "row": stage.row, "command": stage.command, "finished": over,
                    "seconds": cost.seconds, "seconds_complete": not cost.incomplete, "disk_bytes": cost.disk,
                    "store_bytes": cost.store, "how": cost.how}
                   for stage, over, cost in zip(stages, done, each, strict=True)],
    }  # fmt: skip
    lines = [f"# {note}" for note in found.notes]
    for stage, over, cost in zip(stages, done, each, strict=True):
        lines += ["", *_told(stage, over, cost), stage.command]
    lines += ["", "# deviations from the published setting"]
    titles = {name: "all of these rows" if name == SHARED else name for name in deviations}
    lines += [f"# {titles[name]}, {key}: {why}" for name, one in deviations.items() for key, why in one.items()]
    lines += ["", *(f"# {line}" for line in disk)]
    about = f"about {duration(known)} on {device}" if known else f"no time was measured on {device}"
    lines.append(f"# in all: {about}{' and what is not known' if unknown and known else ''}")
    lines += [f"# missing: {problem}" for problem in problems] or ["# nothing is missing"]
    result(as_json, value, lines)
    return 1 if problems else 0


def _told(stage: Stage, over: bool, cost: Cost) -> list[str]:
    title = f"{stage.row or stage.upstream or 'all rows of the scenario'}: {stage.kind}"
    if over:
        return [f"# {title}, finished"]
    pieces = [title]
    if cost.seconds:
        pieces.append(f"about {duration(cost.seconds)}{' and what is not known' if cost.incomplete else ''}")
    elif cost.seconds is None:
        pieces.append("time not known")
    pieces += [
        f"{size / 1e9:.1f} GB {what}" for size, what in ((cost.disk, "kept"), (cost.store, "of features")) if size
    ]
    return [f"# {', '.join(pieces)}", *(f"#   {how}" for how in cost.how)]


def _device() -> str:
    import os

    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else f"{os.cpu_count()} CPUs"


def _run(stages: Sequence[Stage], request: Request) -> None:
    """Every unfinished stage in turn; the first that fails stops it.

    Raises:
        SpeechFTError: something is missing, or a stage failed.
    """
    from speechft.reproduce.check import survey
    from speechft.reproduce.finished import finished

    problems = survey([stage for stage in stages if not finished(stage)], request).problems
    if problems:
        raise SpeechFTError(
            f"{len(problems)} things are missing: {'; '.join(problems)}", "give them; --dry-run shows the whole plan"
        )
    for number, stage in enumerate(stages, 1):
        if finished(stage):
            say(f"{number}/{len(stages)} finished: {stage.command}")
            continue
        say(f"{number}/{len(stages)} {stage.command}")
        verb, *rest = stage.words
        import_module(VERBS[verb][0]).run(rest)
        sys.stdout.flush()
