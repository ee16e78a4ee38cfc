"""`speechft demo`: the whole method, offline."""

from __future__ import annotations

from collections.abc import Sequence

from speechft.cli.arguments import Parser, result

_EPILOG = """It makes a synthetic corpus, fine-tunes the embedded upstream on phone recognition (regular and stable,
two seeds), merges with the pre-trained weights, and scores PR, SID and KS on the frozen results. Some
minutes on 2 cores.
The same command with the same --out goes on where it stopped. Needs speechft[demo]."""


def run(words: Sequence[str]) -> int:
    parser = Parser(
        "demo", "The whole method, offline, on the embedded upstream and a corpus made on the spot.", _EPILOG
    )
    parser.add_argument("--out", metavar="DIR", help="where to work (default: runs/demo-SEED)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="the first of two seeds (default 0)")
    arguments = parser.parse_args(list(words))

    from speechft.demo.demo import run_demo

    report = run_demo(arguments.out, arguments.seed)
    lines = [report["markdown"], report["reading"], "", f"{report['folder']}/report.md, report.json, alpha.png"]
    result(arguments.json, report, lines)
    return 0
