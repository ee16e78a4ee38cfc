"""The words after `scripts/study`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from speechft.cli.arguments import Parser
from speechft.cli.main import guarded
from speechft.config.locate import group_names
from speechft.console import progress, say
from speechft.errors import UsageError
from speechft.study.pieces import run_piece
from speechft.study.plan import PRETRAINED, SCENARIOS, STRATEGIES, USUAL, Piece, Plan
from speechft.study.probes import Tables
from speechft.workers import start_worker

_EPILOG = """DATA holds three tables of real speech, with the paths in them starting from their own folders:
  speechocean762/utterances.tsv    id path seconds speaker split text phones   fine-tuning, PR, characters
  librispeech_mini/utterances.tsv  id path seconds speaker part                SID; ASV: part test-other has the trials
  fsdd/utterances.tsv              id path speaker digit                       digits

examples:
  scripts/study data work hubert_nano
  scripts/study data work hubert_nano whisper_tiny=weights/whisper_tiny_encoder --scenarios pr --seeds 2
  scripts/study data work hubert_nano --scenarios pr --strategies lora dora
  scripts/study data work --page
  scripts/study data work hubert_nano --strategies pretrained --head-steps 4 --results longer
                                                                   are the heads trained for long enough?

A piece is one upstream fine-tuned in one way with one seed; its result is a JSON in docs/study/results of the clone, or
in --results DIR. Stopped at any time, the same command goes on; what has a result there is not measured again, so for a
study of your own give a DIR. --page only writes the tables and pictures from what is there: docs/study.md of the clone,
or DIR/study.md."""

_RESULTS = Path(__file__).resolve().parents[2] / "docs" / "study" / "results"


def main(words: Sequence[str]) -> int:
    """Run the study; returns the exit code: 0 done, 1 failed, 2 wrong use."""
    return guarded(_command, words)


def _command(words: Sequence[str]) -> int:
    parser = Parser("study", "Does what the paper claims hold on real speech? Pieces that resume.", _EPILOG)
    parser.prog = "scripts/study"
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("upstreams", nargs="*", metavar="NAME[=PATH]")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    parser.add_argument("--strategies", nargs="+", default=list(USUAL), choices=(PRETRAINED, *STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="pieces side by side (default 1)")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto: a GPU if there is one"
    )
    parser.add_argument(
        "--head-steps", type=int, default=1, metavar="TIMES", help="train the probes' heads so many times as long"
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="DIR")
    parser.add_argument("--page", action="store_true", help="only write the page from the results")
    arguments = parser.parse_intermixed_args(list(words))
    if not arguments.upstreams and not arguments.page:
        raise UsageError("no upstream is named", "for example: scripts/study data work hubert_nano")
    if arguments.upstreams:
        plan = Plan(
            dict(_named(word) for word in arguments.upstreams),
            scenarios=tuple(arguments.scenarios),
            strategies=tuple(one for one in arguments.strategies if one != PRETRAINED),  # which is always measured
            seeds=tuple(range(arguments.seeds)),
            device=arguments.device,
            head_steps=arguments.head_steps,
        )
        if plan.head_steps != 1 and arguments.results.resolve() == _RESULTS:
            raise UsageError("with --head-steps it is another study", "keep its results apart: --results DIR")
        run_plan(plan, arguments.data.resolve(), arguments.work.resolve(), arguments.results.resolve(), arguments.jobs)
    from speechft.study.page import write_page

    if arguments.results.resolve() == _RESULTS:
        write_page(_RESULTS.parent.parent / "study.md", _RESULTS)
    else:
        write_page(arguments.results / "study.md", arguments.results, arguments.results)
    return 0


def run_plan(plan: Plan, data: Path, work: Path, results: Path, jobs: int = 1) -> None:
    """Measure every piece that has no result yet, in the plan's order."""
    tables = Tables.under(data)
    pieces = list(plan.pieces())
    todo = [piece for piece in pieces if not (results / f"{piece.name}.json").is_file()]
    context = multiprocessing.get_context("spawn")
    with (
        progress("pieces of the study", len(pieces), len(pieces) - len(todo)) as advance,
        ProcessPoolExecutor(jobs, context, initializer=start_worker) as pool,
    ):
        futures = {pool.submit(run_piece, plan, piece, tables, work, results): piece for piece in todo}
        try:
            for done, future in enumerate(as_completed(futures), len(pieces) - len(todo) + 1):
                say(f"  {_told(futures[future], future.result())}")
                advance(done, "")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _told(piece: Piece, record: dict[str, object]) -> str:
    models = record["models"]
    assert isinstance(models, dict)
    shown = [
        f"α {alpha}: " + " ".join(f"{probe} {score['value']:.1f}" for probe, score in model["scores"].items())
        for alpha, model in models.items()
    ]
    return f"{piece.name} ({record['seconds']} s): {'; '.join(shown)}"


def _named(word: str) -> tuple[str, str]:
    name, _, path = word.partition("=")
    if path and not Path(path).expanduser().exists():
        raise UsageError(f"there is no {Path(path).expanduser().absolute()}", "give NAME=PATH of an upstream's folder")
    if not path and name not in group_names("upstream"):
        raise UsageError(
            f"unknown upstream {name!r}", f"give NAME=PATH, or one of {', '.join(group_names('upstream'))}"
        )
    return name, str(Path(path).expanduser().resolve()) if path else name
