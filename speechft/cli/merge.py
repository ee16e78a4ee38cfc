"""`speechft merge`: stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechft.cli import choose
from speechft.cli.arguments import Parser, result
from speechft.errors import UsageError

_EPILOG = """examples:
  speechft merge                                  the latest run, alpha 0.25
  speechft merge runs/NAME --alpha 0.1 0.25 0.5
  speechft merge --pretrained facebook/hubert-base-ls960 --finetuned mine/ --out merged/
  speechft merge runs/NAME --to s3prl             with s3prl.pt in each folder, for plain s3prl.hub

alpha is the weight of the fine-tuned side: 0 is the pre-trained model, 1 the fine-tuned one.

""" + choose.EPILOG  # fmt: skip


def run(words: Sequence[str]) -> int:
    parser = Parser("merge", "Stage 2: interpolate fine-tuned weights with the pre-trained ones.", _EPILOG)
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's folder (default: the latest run)")
    parser.add_argument("--pretrained", metavar="P", help="instead of a run: the pre-trained folder or hub name")
    parser.add_argument("--finetuned", metavar="F", nargs="+", help="with --pretrained: one or several folders")
    parser.add_argument(
        "--alpha", metavar="A", nargs="+", type=choose.alpha, default=[0.25], help="default 0.25; auto: see below"
    )
    parser.add_argument("--method", metavar="M", default="linear", help="default linear")
    parser.add_argument("--extrapolate", action="store_true", help="allow alpha outside [0, 1]")
    parser.add_argument("--out", metavar="DIR", help="where alpha-A/ folders go (default: the run's merged/)")
    parser.add_argument(
        "--to",
        choices=("hf", "s3prl"),
        help="hf: the folder alone; s3prl: with s3prl.pt (default where s3prl reads no folder: WavLM, DeCoAR 2.0)",
    )
    choose.add_options(parser)
    arguments = parser.parse_intermixed_args(list(words))
    if bool(arguments.pretrained) != bool(arguments.finetuned) or (arguments.run and arguments.pretrained):
        raise UsageError("give a run, or both --pretrained and --finetuned", "see speechft merge --help")

    if choose.wanted(arguments):
        options = {"method": arguments.method, "extrapolate": arguments.extrapolate, "to": arguments.to}
        return choose.choose(arguments, options)

    from speechft.merge.merge import merge, merge_run
    from speechft.runs import find_run

    out = Path(arguments.out) if arguments.out else None
    if arguments.pretrained:
        merged = merge(
            arguments.pretrained,
            arguments.finetuned,
            arguments.alpha,
            arguments.method,
            out or Path("merged"),
            arguments.extrapolate,
            to=arguments.to,
        )
    else:
        found = find_run(arguments.run)
        merged = merge_run(found, arguments.alpha, arguments.method, out, arguments.extrapolate, arguments.to)
    value = [{"alpha": model.alpha, "folder": str(model.folder)} for model in merged]
    result(arguments.json, value, [str(model.folder) for model in merged])
    return 0
