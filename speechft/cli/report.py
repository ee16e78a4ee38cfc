"""`speechft report`: tables and plots of finished work."""

from __future__ import annotations

from collections.abc import Sequence

from speechft.cli.arguments import Parser, result

_EPILOG = """examples:
  speechft report                                 the latest run, beside its pre-trained upstream
  speechft report runs/a runs/b --out compared/   several runs in one table
  speechft report runs/superb --base hubert_base  everything scored there, against one row

PATH is a run, a folder of results (what eval superb --out wrote), or one model's folder in it. Results of one model
with several seeds, and of runs that differ by their seed alone, become one row. Writes report.html (one page, nothing
beside it), report.md, report.json and the plots into the first folder, or --out. What speechft analyze found out about
the runs, and the layer weights that heads learned, are in it."""


def run(words: Sequence[str]) -> int:
    parser = Parser("report", "Tables and plots of finished work.", _EPILOG)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="runs or results (default: the latest run)")
    parser.add_argument("--base", metavar="ROW", help="what to compare with (default: each one's pre-trained upstream)")
    parser.add_argument("--reference", metavar="R", default="superb", help="of SUPERB_S: superb, speech-ft, or a file")
    parser.add_argument("--no-published", action="store_true", help="without the published rows")
    parser.add_argument("--draws", metavar="N", type=int, default=2000, help="of the bootstrap (default 2000)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--plots", metavar="F", nargs="+", default=["png"], help="png (default), pdf, svg")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: the first folder)")
    arguments = parser.parse_intermixed_args(list(words))

    from speechft.report.page import tables
    from speechft.report.report import make_report

    report = make_report(
        arguments.paths, arguments.out, arguments.base, arguments.reference, not arguments.no_published,
        arguments.draws, arguments.seed, arguments.plots,
    )  # fmt: skip
    files = ["report.html", "report.md", "report.json", *(name for one in report["pictures"] for name in one["files"])]
    result(arguments.json, report, [tables(report), f"{report['folder']}/{', '.join(files)}"])
    return 0
