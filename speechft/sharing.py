"""Folders that several processes write to at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from speechft.errors import SpeechFTError
from speechft.files import remove_partials


@contextlib.contextmanager
def shared_folder(folder: Path) -> Iterator[None]:
    """A folder, made where it is missing, that several processes may write whole files and folders to at once.

    What interrupted writes left in it is cleared first by whoever is alone there: all hold one lock file, which goes
    with the last of them. Where there are no locks, nothing is cleared.

    Raises:
        SpeechFTError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        file = next((f"{one} is a file" for one in (folder, *folder.parents) if one.is_file()), None)
        why = file or error.strerror or str(error)
        raise SpeechFTError(f"{folder} cannot be made ({why})", "choose another folder with --out") from error
    lock = folder / ".writing"
    descriptor = _joined(lock)
    try:
        yield
    finally:
        if descriptor is not None:
            _left(lock, descriptor)


def _joined(lock: Path) -> int | None:
    """Share a lock file with all who write to its folder; None where there are no locks."""
    try:
        import fcntl

        while True:
            descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                with contextlib.suppress(BlockingIOError):  # others are writing
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(descriptor).st_nlink:
                        remove_partials(lock.parent)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if os.fstat(descriptor).st_nlink:  # else it went with the last of the others while we waited
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    except (ImportError, OSError):
        return None


def _left(lock: Path, descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # others go on
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.unlink(missing_ok=True)
    os.close(descriptor)
