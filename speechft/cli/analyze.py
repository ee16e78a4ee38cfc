"""`speechft analyze`: how far models moved, in weights and in features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechft.cli.arguments import Parser, result
from speechft.errors import UsageError

_EPILOG = """examples:
  speechft analyze                                          the latest run: its fine-tuned and merged models
  speechft analyze runs/stable runs/regular --audio /data/LibriSpeech/test-clean
  speechft analyze hubert_base mine/ other/ --audio corpus.tsv --utterances 500
  speechft analyze runs/a --weights-only --plots pdf        where the weights moved; nothing is heard

Models are compared with the upstream they were fine-tuned from, or with --base, or with the first. Of each hidden
state: linear CKA, cosine and relative L2 distance over all frames of the audio (padding never counts); of the weights:
the update's norm by layer and module. The layer weights that SUPERB's heads learned are shown where eval superb left
them. Figures are kept by the hashes of models and audio: the same command goes on where it stopped."""


def run(words: Sequence[str]) -> int:
    parser = Parser("analyze", "Feature similarity to the pre-trained model, and size of the weight update.", _EPILOG)
    parser.add_argument("words", nargs="*", metavar="RUN|MODEL", help="runs, folders or names (default: latest run)")
    parser.add_argument("--base", metavar="P", help="what to compare with")
    parser.add_argument(
        "--audio", metavar="PATH", default=None,
        help="a folder, a .tsv table, or synthetic:SIZE (default synthetic:smoke, the test set; needs no file)",
    )  # fmt: skip
    parser.add_argument("--utterances", metavar="N", type=int, help="only so many of them, evenly spread")
    parser.add_argument("--weights-only", action="store_true", help="without hearing anything")
    parser.add_argument("--plots", metavar="F", nargs="+", default=["png"], help="png (default), pdf, svg")
    parser.add_argument("--device", metavar="D", default="auto", help="auto (default), cpu, cuda")
    parser.add_argument("--batch-seconds", metavar="S", type=float, help="of audio heard at once (default 60)")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: analysis/ in the run)")
    arguments = parser.parse_intermixed_args(list(words))
    if arguments.weights_only and (arguments.audio or arguments.utterances):
        raise UsageError("--weights-only hears nothing", "leave out --audio and --utterances")

    from speechft.analysis.analyze import analyze
    from speechft.analysis.audio import DEFAULT_AUDIO
    from speechft.figures import checked_formats

    found = analyze(
        arguments.words, arguments.base, None if arguments.weights_only else arguments.audio or DEFAULT_AUDIO,
        arguments.utterances, arguments.out, checked_formats(arguments.plots), arguments.device,
        arguments.batch_seconds,
    )  # fmt: skip
    result(arguments.json, found, lines(found))
    return 0


def lines(found: dict[str, Any]) -> list[str]:
    """The table, and what must be said beside it."""
    from speechft.analysis.table import about, table

    head, body = table(found)
    rows = [head, *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text += [about(found), *(f"Note: {note}." for note in found["notes"])]
    files = ["analysis.json", *(name for plot in found["plots"] for name in plot["files"])]
    return [*text, f"{found['folder']}/{', '.join(files)}"]
