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
  speechft merge --methods                        what --method takes, with formulas and parameters
  speechft merge --pretrained P --finetuned F G --method ties --set density=0.3 weights=1,0.5
  speechft merge --method my_method.py:function   a method of your own (docs/own_merge_method.md)
  speechft merge runs/NAME --alpha 0.25 --alpha-at cnn=0 'layers.1*=0.5' --keep '*.bias'
  speechft merge runs/NAME --alpha-by-depth 0 0.25 0.5
  speechft merge runs/NAME --method fisher --corpus speech/      weighs by statistics of a folder of audio
  speechft merge runs/NAME --checkpoints --method average        the run's checkpoints (SWA; --set decay=0.5: EMA)

alpha is the weight of the fine-tuned side: 0 is the pre-trained model, 1 the fine-tuned one. A pattern is a part (cnn,
projection, position, layers.3) or a tensor's name or the beginning of one; * stands for anything.

""" + choose.EPILOG  # fmt: skip


def run(words: Sequence[str]) -> int:
    parser = Parser("merge", "Stage 2: interpolate fine-tuned weights with the pre-trained ones.", _EPILOG)
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's folder (default: the latest run)")
    parser.add_argument("--pretrained", metavar="P", help="instead of a run: the pre-trained folder or hub name")
    parser.add_argument("--finetuned", metavar="F", nargs="+", help="with --pretrained: one or several folders")
    parser.add_argument(
        "--alpha", metavar="A", nargs="+", type=choose.alpha, help="default 0.25, or the method's own; auto: see below"
    )
    parser.add_argument("--method", metavar="M", help="default linear (--checkpoints: average); --methods lists them")
    parser.add_argument("--methods", action="store_true", help="list the methods and their parameters, and do nothing")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", nargs="+", action="extend", default=[], help="parameters of the method"
    )
    parser.add_argument(
        "--alpha-at", metavar="PATTERN=A", nargs="+", action="extend", default=[], help="another alpha for some tensors"
    )
    parser.add_argument("--alpha-by-depth", metavar="A", nargs="+", type=float, help="from the first layer to the last")
    parser.add_argument(
        "--keep", metavar="PATTERN", nargs="+", action="extend", default=[], help="tensors that stay the pre-trained"
    )
    parser.add_argument(
        "--weight-norm",
        choices=("stored", "effective"),
        default="stored",
        help="merge its g and v as stored (default, as the published code) or the weight they stand for",
    )
    parser.add_argument("--checkpoints", action="store_true", help="merge the run's checkpoints instead of its result")
    parser.add_argument("--corpus", metavar="C", help="speech for fisher and regmean: a folder of audio, or a TSV")
    parser.add_argument("--statistics", metavar="FILE", nargs="+", help="instead: files of them, the pre-trained first")
    parser.add_argument("--seed", metavar="N", type=int, help="of what is drawn on --corpus (default 0)")
    parser.add_argument("--no-check", action="store_true", help="do not reload and run the results")
    parser.add_argument("--extrapolate", action="store_true", help="allow alpha outside [0, 1]")
    parser.add_argument("--out", metavar="DIR", help="where alpha-A/ folders go (default: the run's merged/)")
    parser.add_argument(
        "--to",
        choices=("hf", "s3prl"),
        help="hf: the folder alone; s3prl: with s3prl.pt (default where s3prl reads no folder: WavLM, DeCoAR 2.0)",
    )
    choose.add_options(parser)
    arguments = parser.parse_intermixed_args(list(words))
    if arguments.methods:
        from speechft.merge.registry import described, table

        result(arguments.json, described(), table())
        return 0
    if bool(arguments.pretrained) != bool(arguments.finetuned) or (arguments.run and arguments.pretrained):
        raise UsageError("give a run, or both --pretrained and --finetuned", "see speechft merge --help")
    if arguments.checkpoints and arguments.pretrained:
        raise UsageError("--checkpoints are a run's", "name the run, or give checkpoint folders as --finetuned")
    arguments.method = arguments.method or ("average" if arguments.checkpoints else "linear")
    if arguments.method == "average" and not (arguments.checkpoints or arguments.pretrained):
        raise UsageError("average is of a run's checkpoints, and its result is one model", "add --checkpoints")
    if arguments.seed is not None and not arguments.corpus:
        raise UsageError(
            "--seed is of what is drawn on --corpus", f"a method that draws takes --set seed={arguments.seed}"
        )

    from speechft.runs import find_run

    found = None if arguments.pretrained else find_run(arguments.run)  # before torch is imported, which takes seconds

    from speechft.merge.alphas import read_at
    from speechft.merge.merge import merge, merge_run
    from speechft.train.state import checkpoints

    out = Path(arguments.out) if arguments.out else None
    choices = {
        "parameters": _parameters(arguments.set), "alpha_at": read_at(arguments.alpha_at),
        "alpha_by_depth": arguments.alpha_by_depth, "keep": arguments.keep, "weight_norm": arguments.weight_norm,
        "statistics": arguments.statistics, "corpus": arguments.corpus, "seed": arguments.seed or 0,
        "check": not arguments.no_check,
    }  # fmt: skip
    if choose.wanted(arguments):
        options = {"method": arguments.method, "extrapolate": arguments.extrapolate, "to": arguments.to, **choices}
        return choose.choose(arguments, options)
    if found is None:
        merged = merge(
            arguments.pretrained,
            arguments.finetuned,
            arguments.alpha,
            arguments.method,
            out or Path("merged"),
            arguments.extrapolate,
            to=arguments.to,
            **choices,
        )
    else:
        merged = merge_run(
            found, arguments.alpha, arguments.method, out, arguments.extrapolate, arguments.to,
            checkpoints=checkpoints(found.checkpoints) if arguments.checkpoints else None, **choices,
        )  # fmt: skip
    value = [{"alpha": model.alpha, "folder": str(model.folder)} for model in merged]
    result(arguments.json, value, [str(model.folder) for model in merged])
    return 0


def _parameters(words: Sequence[str]) -> dict[str, str]:
    """`density=0.2` as pairs; the method reads the values."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"{word!r} sets nothing", "write NAME=VALUE, such as density=0.2; see --methods")
    return dict(word.split("=", 1) for word in words)
