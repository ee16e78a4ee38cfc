"""`speechft merge --alpha auto`: its options, and from them to a choice."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.errors import UsageError

AUTO = "auto"

EPILOG = """--alpha auto merges at every alpha of --alphas, scores each, and keeps the one that --rule chooses:
  speechft merge --alpha auto                     by how far the features moved and the run's dev metric: minutes
  speechft merge --alpha auto --score superb --tasks pr,sid --rule budget --lose 1% --score-with data.synthetic=smoke
choice.json and choice.png beside alpha-A/ say why. An alpha that was scored before is not scored again."""

_ONLY = ("alphas", "score", "tasks", "on", "rule", "lose", "similarity", "minutes", "refit", "score_with", "plots")


def alpha(text: str) -> float | str:
    """A value of `--alpha`: a number, or `auto`."""
    if text == AUTO:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r} (a number, or {AUTO})") from error


def add_options(parser: Parser) -> None:
    """The options that `--alpha auto` understands."""
    group = parser.add_argument_group("with --alpha auto")
    group.add_argument("--alphas", metavar="A", nargs="+", type=float, help="the sweep (default: tenths, and 0.25)")
    group.add_argument(
        "--score", choices=("drift", "superb"),
        help="drift: feature similarity to the pre-trained model, and the run's dev metric (default); superb: --tasks",
    )  # fmt: skip
    group.add_argument("--tasks", metavar="T,T", help="SUPERB tasks of --score superb")
    group.add_argument("--on", choices=("dev", "test"), help="of --score superb: whose scores choose (default dev)")
    group.add_argument("--rule", choices=("knee", "budget"), help="default knee; budget: the best within --lose")
    group.add_argument(
        "--lose", metavar="PERCENT", help="what any score may lose, relative to pre-trained (default 1%%)"
    )
    group.add_argument("--similarity", choices=("cka", "cosine"), help="of drift; mean over the layers (default cka)")
    group.add_argument("--minutes", metavar="M", type=float, help="of dev audio for the similarity (default 10)")
    group.add_argument(
        "--refit", metavar="N", type=int, help="steps of the head on each model's frozen features (default 100)"
    )
    group.add_argument("--plots", metavar="F", nargs="+", help="of the picture: png (default), pdf, svg")
    group.add_argument(
        "--score-with", metavar="KEY=VALUE", nargs="+",
        help="drift: other values of the run's data.*; superb: of eval superb, such as data.voxceleb1=/data/VoxCeleb1",
    )  # fmt: skip


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether α is to be chosen.

    Raises:
        UsageError: `auto` beside numbers, or an option of `auto` without it.
    """
    if AUTO in (arguments.alpha or ()):
        if len(arguments.alpha) > 1:
            raise UsageError("--alpha is auto or numbers, not both", "the sweep's own values go to --alphas")
        return True
    given = [name for name in _ONLY if getattr(arguments, name) is not None]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for --alpha auto", "add --alpha auto")
    return False


def share(text: str) -> float:
    """`1%` or `1` -> 0.01.

    Raises:
        UsageError: no number.
    """
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError as error:
        raise UsageError(f"--lose {text} is no percentage", "such as --lose 1%") from error


def choose(arguments: argparse.Namespace, options: Mapping[str, Any]) -> int:
    """Choose α and merge with it.

    Args:
        arguments: of the command, run or parents included.
        options: of the merge: keywords of `merge`.
    """
    kind, rule = arguments.score or "drift", arguments.rule or "knee"
    lose = share(arguments.lose or "1%")
    if arguments.lose and rule != "budget":
        raise UsageError("--lose is for --rule budget", "add --rule budget")
    foreign = ("tasks", "on") if kind == "drift" else ("similarity", "minutes", "refit")
    for name in foreign:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name} is not for --score {kind}", "see speechft merge --help")
    if kind == "drift" and arguments.pretrained:
        raise UsageError("--score drift needs a run, with its head and dev set", "use --score superb")
    overrides = check_overrides(arguments.score_with or [])

    from speechft.choosing.choose import ALPHAS, SCORES, checked
    from speechft.choosing.choose import choose as choose_alpha
    from speechft.choosing.picture import table

    alphas = checked(arguments.alphas or ALPHAS, arguments.extrapolate)
    candidates, config, out, results = _parents(arguments, options, overrides if kind == "drift" else [])
    if kind == "drift":
        scorer = _drift(arguments, candidates, config)
    else:
        scorer = _superb(arguments, candidates, config, (results, out / "superb"), out / SCORES / "features", overrides)
    choice = choose_alpha(
        candidates, scorer, out, alphas, rule, lose, arguments.extrapolate, arguments.plots or ["png"]
    )
    result(arguments.json, choice, [*table(choice), str(choice["folder"])])
    return 0


def _parents(
    arguments: argparse.Namespace, options: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Any, dict[str, Any], Path, Path]:
    """What is merged, the run's configuration (empty without a run), and where models and SUPERB results go."""
    from speechft.choosing.candidates import Candidates

    if arguments.pretrained:
        from speechft.upstreams.load import conventions

        out = Path(arguments.out or "merged").expanduser().resolve()
        upstream = conventions(arguments.pretrained)
        upstream.setdefault("source", arguments.pretrained)
        tuned = [Path(one) for one in arguments.finetuned]
        return Candidates(out.name, upstream, tuned, options), {}, out, out / "superb"
    from speechft.choosing.configuration import changed
    from speechft.config.compose import read_config
    from speechft.runs import find_run
    from speechft.train.state import checkpoints

    run = find_run(arguments.run)
    if arguments.checkpoints:
        options = {**options, "checkpoints": checkpoints(run.checkpoints)}
    config = changed(read_config(run.config), overrides)
    out = Path(arguments.out).expanduser().resolve() if arguments.out else run.merged
    return Candidates.of_run(run, config, options), config, out, out / "superb" if arguments.out else run.superb


def _drift(arguments: argparse.Namespace, candidates: Any, config: dict[str, Any]) -> Any:
    import torch

    from speechft.choosing.drift import Drift
    from speechft.superb.settings import resolve_device

    if config["trainer"].get("threads"):
        torch.set_num_threads(int(config["trainer"]["threads"]))
    return Drift(
        candidates.run, config, arguments.similarity or "cka",
        10.0 if arguments.minutes is None else arguments.minutes, arguments.refit,
        resolve_device(str(config["trainer"]["device"])),
    )  # fmt: skip


def _superb(
    arguments: argparse.Namespace, candidates: Any, config: dict[str, Any], results: tuple[Path, Path], scratch: Path,
    overrides: Sequence[str],
) -> Any:  # fmt: skip
    from speechft.choosing.superb import Superb
    from speechft.superb.settings import compose
    from speechft.superb.sources import model_name

    base = model_name(str(candidates.upstream["name"]))
    return Superb(
        arguments.tasks.split(",") if arguments.tasks else None, compose(overrides), results[0], scratch,
        lambda alpha: candidates.label(alpha) if alpha else base,
        str(config["task"]["name"]) if config else None, arguments.on or "dev", results[1],
    )  # fmt: skip
