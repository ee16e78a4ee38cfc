"""`speechft doctor`: what is installed, what is missing, which tasks can run."""

from __future__ import annotations

from collections.abc import Sequence

from speechft.cli.arguments import Parser, result


def run(words: Sequence[str]) -> int:
    parser = Parser("doctor", "What is installed, what is missing, which tasks can run, where data was found.")
    parser.add_argument(
        "overrides", nargs="*", metavar="override", help="paths to look at, such as data.librispeech=/data"
    )
    parser.add_argument("--upstream", metavar="X", help="describe an upstream instead: a name, a folder, a .pt file")
    arguments = parser.parse_intermixed_args(list(words))

    if arguments.upstream:
        from speechft.upstreams.describe import describe, lines

        found = describe(arguments.upstream)
        result(arguments.json, found, lines(found))
        return 0

    from speechft.doctor import examine

    report = examine(arguments.overrides)
    result(arguments.json, report.as_dict(), report.lines())
    return 0 if report.healthy else 1
