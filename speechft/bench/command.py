"""The words after `scripts/bench`: which comparison, with which options."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from speechft.cli.arguments import Parser
from speechft.cli.main import guarded
from speechft.errors import UsageError

NAMES = ("forward", "together", "superb", "train", "merge")
_EPILOG = """examples:
  scripts/bench forward
  scripts/bench forward --device cuda --precision bf16 --waveforms 256 --seconds 2 15 --batch 32

Random weights of the size of HuBERT base; the same waveforms, device and threads for all three; repetitions
interleaved; medians. The last line on stdout is one JSON object with every figure."""

_TOGETHER = """examples:
  scripts/bench together
  scripts/bench together --device cuda --precision bf16 --models 6 --waveforms 256 --seconds 2 15

Models with the CNN of one pre-trained model and random weights else, as an α sweep has them; the same waveforms,
batches and threads on both sides, in turns; medians. The last line on stdout is one JSON object with every figure."""


_SUPERB = """examples:
  scripts/bench superb
  scripts/bench superb --sentence-seconds 12.7 --repetitions 3 --steps 2
  scripts/bench superb --device cuda --steps 10 --head-steps 500 --batch-seconds 600

An upstream of the size of HuBERT base with random weights, corpora made on the spot in the official layouts, the
official recipes (configs/superb). Micro-batches, encoding and evaluations are measured on both sides in turn; the hours
of the full recipes on the official corpora are extrapolated from them. The last line on stdout is one JSON object with
every figure."""


_TRAIN = """examples:
  scripts/bench train
  scripts/bench train --device cuda --precision bf16 --seconds 10 --batch 16 --steps 50 --workers 4

Random weights of the size of HuBERT base, CTC on the same clips, in a process for each side; rounds interleaved;
medians. The last line on stdout is one JSON object with every figure."""


_MERGE = """examples:
  scripts/bench merge
  scripts/bench merge --size large --repetitions 5 --mergekit ~/mergekit/bin/python
  scripts/bench merge --cold --folder /data/checkpoints

Two models of HuBERT's size with random weights; every side in a process of its own, in turns; medians. The last line on
stdout is one JSON object with every figure; ratio is bytes a second by those of a plain file copy."""


def main(words: Sequence[str]) -> int:
    """Run a comparison; returns the exit code: 0 done, 1 failed, 2 wrong use."""
    return guarded(_command, words)


def _command(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(f"usage: scripts/bench {'|'.join(NAMES)} [--json] [option ...]\n")
        return 0 if words else 2
    if words[0] not in NAMES:
        raise UsageError(f"unknown comparison {words[0]!r}", f"known: {', '.join(NAMES)}")
    known = {"forward": _forward, "together": _together, "superb": _superb, "train": _train, "merge": _merge}
    lines, record = known[words[0]](words[1:])
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    return 0


def _forward(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench forward", "Audio seconds a second: speechft's upstream, s3prl's, transformers'.", _EPILOG)
    parser.prog = "scripts/bench forward"
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default auto)")
    parser.add_argument("--precision", default="no", help="no, bf16, fp16: autocast for all three (default no)")
    parser.add_argument("--compile", action="store_true", help="torch.compile speechft's layers; the others stay plain")
    _waveforms(parser)
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="waveforms in a batch (default 8)")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="default 3")
    return _run(parser, "forward", words)


def _together(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench together", "Several upstreams with one CNN: together, and one after the other.", _TOGETHER)
    parser.prog = "scripts/bench together"
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default auto)")
    parser.add_argument("--precision", default="no", help="no, bf16, fp16: autocast on both sides (default no)")
    parser.add_argument("--models", type=int, default=4, metavar="N", help="upstreams (default 4)")
    _waveforms(parser)
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="default 3")
    return _run(parser, "together", words)


def _superb(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench superb", "SUPERB's recipes: s3prl's own loop beside the fast engine.", _SUPERB)
    parser.prog = "scripts/bench superb"
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default auto)")
    parser.add_argument("--precision", default="no", help="no, bf16, fp16: of the fast engine's upstream (default no)")
    parser.add_argument("--tasks", nargs="+", default=["ks", "sid", "pr"], metavar="TASK", help="default ks sid pr")
    parser.add_argument(
        "--steps", type=int, default=1, metavar="N", help="micro-batches timed with the upstream, a round (default 1)"
    )
    parser.add_argument(
        "--head-steps", type=int, default=60, metavar="N", help="micro-batches timed without it, a round (default 60)"
    )
    parser.add_argument("--repetitions", type=int, default=2, metavar="N", help="rounds of both sides (default 2)")
    parser.add_argument("--rates", type=int, default=5, metavar="N", help="learning rates searched for PR (default 5)")
    parser.add_argument(
        "--speaker-seconds", type=float, default=8.2, metavar="S", help="mean utterance of SID (default 8.2)"
    )
    parser.add_argument(
        "--sentence-seconds", type=float, default=4.0, metavar="S", help="mean utterance of PR (default 4; real: 12.7)"
    )
    parser.add_argument("--batch", type=int, default=None, metavar="N", help="batch size (default: each recipe's)")
    parser.add_argument(
        "--rows", type=int, default=8000, metavar="N", help="pooled features a head looks among (default 8000)"
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=None,
        metavar="S",
        help="of audio in a batch of encoding (default, as of speechft eval superb: 32 on a CPU, 60 on a GPU)",
    )
    return _run(parser, "superb", words)


def _train(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench train", "Steps a second: speechft's loop, s3prl's, Hugging Face's Trainer.", _TRAIN)
    parser.prog = "scripts/bench train"
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default auto)")
    parser.add_argument("--precision", default="no", help="no, bf16, fp16 (default no); s3prl has fp16 alone")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="mean length of a clip (default 2)")
    parser.add_argument("--clips", type=int, metavar="N", help="how many there are (default: twice what a round takes)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="clips in a batch (default 4)")
    parser.add_argument("--steps", type=int, default=6, metavar="N", help="timed in a round (default 6)")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="rounds (default 3)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="reading processes (default 0)")
    return _run(parser, "train", words)


def _merge(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench merge", "A merge beside a file copy, the published script's way and mergekit.", _MERGE)
    parser.prog = "scripts/bench merge"
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument(
        "--mergekit", metavar="PYTHON", help="python of an environment that has it; else it is left out"
    )
    parser.add_argument("--folder", metavar="DIR", help="whose disk to work on (default: the system's temporary one)")
    parser.add_argument("--cold", action="store_true", help="read the parents from the disk, not from the file cache")
    return _run(parser, "merge", words)


def _waveforms(parser: Parser) -> None:
    parser.add_argument("--waveforms", type=int, default=24, metavar="N", help="default 24")
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(1.0, 3.0), metavar=("SHORTEST", "LONGEST"), help="default 1 3"
    )


def _run(parser: Parser, name: str, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Add what every comparison has, read the words, and measure."""
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="of the CPU (default: torch's)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and waveforms (default 0)")
    parser.add_argument(
        "--size", default="base", help="base, tiny to try the script itself, or large, which merge has (default base)"
    )
    return _measure(name, parser.parse_args(list(words)))


def _measure(name: str, arguments: Namespace) -> tuple[list[str], dict[str, Any]]:
    module = import_module(f"speechft.bench.{name}")
    record = module.measure(module.Setting.read(arguments))
    return ([] if arguments.json else module.table(record)), record
