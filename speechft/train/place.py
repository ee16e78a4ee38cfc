"""Which folder a run has: the one that is asked for, the one where the same command was interrupted, or a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from speechft.config.compose import differences, read_config
from speechft.console import say
from speechft.errors import SpeechFTError
from speechft.files import claimed
from speechft.runs import Run, choose_folder, dated_folders


@contextmanager
def place(out: str | Path | None, settings: Mapping[str, Any]) -> Iterator[tuple[Path, bool]]:
    """A run's folder. Without `out` the same command goes on where it was interrupted, as it does with one.

    Args:
        out: the folder, where one is asked for.
        settings: the run's configuration.

    Yields:
        The folder; and whether it is an interrupted run's, whose lock is then held inside: of two commands that are
        typed again at once the second begins anew.
    """
    name = str(settings["name"])
    for folder in [] if out else dated_folders(name):
        run = Run(folder)
        # Configurations first: many runs that are started again at once, each with its own seed, meet no other's lock.
        if _interrupted(run, settings):
            with claimed(run.lock, unsure=False) as ours:
                if ours and not run.finished:
                    say(f"{folder} was interrupted, with this configuration; --out DIR would begin another run")
                    yield folder, True
                    return
    # Of finished runs, which may be hundreds, the newest alone: a configuration takes 25 ms to read.
    last = None if out else next((run for run in map(Run, dated_folders(name)) if _finished(run)), None)
    if last is not None and _same(last.config, settings):
        again = f"it is trained again (--out {last.folder} would leave it)"
        say(f"{last.folder} is finished, with this configuration; {again}")
    yield choose_folder(str(out) if out else None, name), False


@contextmanager
def owned(run: Run, held: bool) -> Iterator[None]:
    """Be the only one who trains a run.

    Args:
        run: the run.
        held: whether its lock is ours already, as `place` told.

    Raises:
        SpeechFTError: somebody else does.
    """
    with nullcontext(True) if held else claimed(run.lock) as ours:
        if not ours:
            mend = "wait for it, or choose another --out"
            raise SpeechFTError(f"{run.folder} is being trained by another process", mend)
        yield


def _finished(run: Run) -> bool:
    try:
        return run.finished
    except OSError:  # another user's
        return False


def _same(config: Path, settings: Mapping[str, Any]) -> bool:
    try:
        return not differences(read_config(config), settings)
    except (OSError, SpeechFTError):  # another user's, or damaged
        return False


def _interrupted(run: Run, settings: Mapping[str, Any]) -> bool:
    try:
        if run.finished:
            return False
        if run.sequence.is_file():
            return _same(run.sequence, settings)
        begun = run.pretrained.is_file() and any(run.checkpoints.glob("step-*"))
        return begun and _same(run.config, settings)
    except OSError:  # another user's
        return False
