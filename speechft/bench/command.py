"""The words after `scripts/bench`: which comparison, with which options."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from speechft.cli.arguments import Parser
from speechft.cli.main import guarded
from speechft.errors import UsageError

NAMES = ("forward", "superb", "train", "merge")
_EPILOG = """examples:
  scripts/bench forward
  scripts/bench forward --device cuda --precision bf16 --waveforms 256 --seconds 2 15 --batch 32

Random weights of the size of HuBERT base; the same waveforms, device and threads for all three; repetitions
interleaved; medians. The last line on stdout is one JSON object with every figure."""


def main(words: Sequence[str]) -> int:
    """Run a comparison; returns the exit code: 0 done, 1 failed, 2 wrong use."""
    return guarded(_command, words)


def _command(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(f"usage: scripts/bench {'|'.join(NAMES)} [--json] [option ...]\n")
        return 0 if words else 2
    if words[0] not in NAMES:
        raise UsageError(f"unknown comparison {words[0]!r}", f"known: {', '.join(NAMES)}")
    if words[0] != "forward":
        raise UsageError(f"the comparison {words[0]!r} does not exist yet", "scripts/bench forward does")
    lines, record = _forward(words[1:])
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    return 0


def _forward(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    parser = Parser("bench forward", "Audio seconds a second: speechft's upstream, s3prl's, transformers'.", _EPILOG)
    parser.prog = "scripts/bench forward"
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default auto)")
    parser.add_argument("--precision", default="no", help="no, bf16, fp16: autocast for all three (default no)")
    parser.add_argument("--compile", action="store_true", help="torch.compile speechft's layers; the others stay plain")
    parser.add_argument("--waveforms", type=int, default=24, metavar="N", help="default 24")
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(1.0, 3.0), metavar=("SHORTEST", "LONGEST"), help="default 1 3"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="waveforms in a batch (default 8)")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="of the CPU (default: torch's)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and waveforms (default 0)")
    parser.add_argument("--size", default="base", help="base, or tiny to try the script itself (default base)")
    arguments = parser.parse_args(list(words))

    from speechft.bench.forward import Setting, measure, table

    setting = Setting.read(arguments)
    record = measure(setting)
    return ([] if arguments.json else table(record)), record
