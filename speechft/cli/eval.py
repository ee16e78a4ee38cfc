"""`speechft eval superb`: stage 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.errors import UsageError

_EPILOG = """examples:
  speechft eval superb                                       what the latest run merged
  speechft eval superb hubert_base runs/NAME --tasks pr,sid data.librispeech=/data/LibriSpeech \\
      data.lexicon=/data/lexicon.txt data.voxceleb1=/data/VoxCeleb1 data.iden_split=/data/iden_split.txt
  speechft eval superb hubert_nano fbank --tasks sid data.synthetic=demo superb.sid.steps=2000 lr=[1e-3,1e-2]

An UPSTREAM is a known name, a run (its merged models), a Hugging Face folder or hub name; words with = are overrides.
Finished tasks are not computed again; an interrupted one goes on."""


def run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        words = ["superb", "--help"]
    if words[0] != "superb":
        raise UsageError(f"unknown benchmark {words[0]!r}", "known: superb, as in speechft eval superb")
    parser = Parser("eval superb", "Stage 3: score frozen upstreams on SUPERB, through s3prl.", _EPILOG)
    parser.add_argument("words", nargs="*", metavar="UPSTREAM|override", help="what to score, and key=value settings")
    parser.add_argument(
        "--tasks", help="comma-separated, of pr asr ks qbe sid asv ic sf er sd (default: whose files are given)"
    )
    parser.add_argument(
        "--engine", choices=("fast", "s3prl"), help="default fast: the frozen features are computed once"
    )
    parser.add_argument("--out", metavar="DIR", help="results (default: the run's superb/, or runs/superb)")
    arguments = parser.parse_intermixed_args(list(words[1:]))
    upstreams = [word for word in arguments.words if "=" not in word]
    overrides = check_overrides([word.removeprefix("eval.") for word in arguments.words if "=" in word])

    from speechft.runs import find_run, is_run, runs_root
    from speechft.superb.evaluate import evaluate
    from speechft.superb.settings import compose

    settings = compose(overrides)
    folder = runs_root() / "superb"
    if not upstreams:
        latest = find_run(None)
        if not latest.merged_models():
            raise UsageError(
                f"{latest.folder} has no merged model", "merge it first (speechft merge), or name an upstream"
            )
        upstreams, folder = [str(latest.folder)], latest.superb
    elif len(upstreams) == 1 and is_run(Path(upstreams[0]).expanduser()):
        folder = find_run(upstreams[0]).superb
    out = Path(arguments.out or settings.get("out") or folder)
    tasks = arguments.tasks.split(",") if arguments.tasks else None
    results = evaluate(upstreams, tasks, arguments.engine, out, settings)
    lines = [
        f"{one['upstream']['name']}\t{one['task']}\t{one['metric']}\t{one['metrics'][one['metric']]:.4f}"
        for one in results
    ]
    result(arguments.json, results, lines)
    return 0
