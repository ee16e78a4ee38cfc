"""The command line: finds the verb, and turns errors into one line and an exit code. Nothing heavy is imported here."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from speechft import __version__
from speechft.errors import SpeechFTError, UsageError

VERBS = {
    "train": ("speechft.cli.train", "stage 1: fine-tune an upstream on a task"),
    "merge": ("speechft.cli.merge", "stage 2: interpolate it with the pre-trained upstream"),
    "eval": ("speechft.cli.eval", "stage 3: score upstreams on SUPERB (speechft eval superb)"),
    "analyze": ("speechft.cli.analyze", "how far models moved, in weights and in features"),
    "convert": ("speechft.cli.convert", "a checkpoint in another format: Hugging Face's or s3prl's"),
    "push": ("speechft.cli.push", "a model to the Hugging Face Hub, with card and scores"),
    "report": ("speechft.cli.report", "tables and plots of finished evaluations"),
    "demo": ("speechft.cli.demo", "the whole method, offline, in minutes"),
    "doctor": ("speechft.cli.doctor", "what is installed, what is missing, which tasks can run"),
}


def usage() -> str:
    """The help of `speechft` itself."""
    verbs = "\n".join(f"  {verb:8} {text}" for verb, (_, text) in VERBS.items())
    return f"""usage: speechft COMMAND [option ...] [override ...]

Fine-tune self-supervised speech upstreams and keep what they knew (Speech-FT, arXiv 2502.12672).

commands:
{verbs}

options:
  --help     this text; speechft COMMAND --help for a command's own
  --version  the version
  --debug    show the traceback of an error

Start with: speechft demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong use."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(_command, words)


def _command(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"speechft {__version__}\n")
        return 0
    verb, *rest = [word for word in words if word != "--debug"] if words[0] == "--debug" else words
    if verb not in VERBS:
        meant = "".join(f"did you mean {one}? " for one in difflib.get_close_matches(verb, VERBS, 1))
        raise UsageError(f"unknown command {verb!r}", f"{meant}known: {', '.join(VERBS)}; see speechft --help")
    calm_libraries()
    return int(import_module(VERBS[verb][0]).run(rest) or 0)


def guarded(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Run a command; an error becomes one line on stderr and an exit code."""
    debug = "--debug" in words
    try:
        return command(words)
    except SystemExit as leave:  # argparse after --help
        return int(leave.code or 0) if isinstance(leave.code, int) or leave.code is None else 1
    except SpeechFTError as error:
        if debug:
            traceback.print_exc()
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; run the same command to go on")
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or _first_line(error) or type(error).__name__
        mend = "check the path, its permissions and the disk (--debug: where)" if error.errno else "--debug shows where"
        _complain(f"{where}{what}; {mend}")
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        _complain(f"{type(error).__name__}: {_first_line(error)}; run again with --debug to see where")
        return 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _complain(line: str) -> None:
    """The one line; of several processes of a run only the first to fail says it."""
    if "WORLD_SIZE" in os.environ:
        from speechft.train.devices import first_to_fail

        if not first_to_fail():
            return
    print(f"speechft: error: {line}", file=sys.stderr, flush=True)


def calm_libraries() -> None:
    """Settings of libraries that must stand before they are imported."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads halve the speed of a busy machine
    if "WORLD_SIZE" in os.environ:  # or DDP would say in every process that each parameter had a gradient this time
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not sys.warnoptions:
        import warnings

        warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|torchaudio|transformers|lhotse|s3prl)")
        warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    raise SystemExit(main())
