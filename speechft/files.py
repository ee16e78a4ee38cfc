"""Files written whole, hashes, and the two places speechft writes to: a run's folder and the cache.

Every file and folder appears under its final name only when it is complete: it is written beside its place under a
temporary name, flushed to the disk, and renamed. A crash or a full disk leaves either the old content or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechft.errors import DiskFullError, SpeechFTError

_TEMPORARY = ".partial-"


def cache_dir() -> Path:
    """The cache folder: ``$SPEECHFT_CACHE``, or ``~/.cache/speechft``."""
    root = os.environ.get("SPEECHFT_CACHE")
    return Path(root).expanduser().resolve() if root else Path.home() / ".cache" / "speechft"


def partial_name(path: Path) -> str:
    """A temporary's name for a path: what has it is unfinished, and nobody reads it."""
    return f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}"


def _partial(path: Path) -> Path:
    return path.with_name(partial_name(path))


def is_partial(path: Path) -> bool:
    """Whether this is a temporary left behind by an interrupted write."""
    return path.name.startswith(_TEMPORARY)


def remove_partials(folder: Path) -> None:
    """Clear what interrupted writes left in a folder. Only for folders that one process writes to; see `sharing.py`."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """A folder, a file, or a link (and not what it leads to), if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _settle(path: Path, flush: bool = True) -> None:
    """Give a file the usual mode (some writers make files only their owner can read), and flush it to the disk."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    if not flush:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def claimed(path: Path, unsure: bool = True) -> Iterator[bool]:
    """Hold a lock file inside, if nobody else does, no thread of this process either; it is removed afterwards, and
    worth nothing once the process is gone, however it went. It does not pass to what the process forks: a data loader's
    workers outlive a kill by some seconds.

    Args:
        path: of the lock file.
        unsure: what to say where there are no locks, and where the folder cannot be written, which writing will tell.

    Yields:
        Whether the work is ours.
    """
    descriptor, key = None, (os.getpid(), str(path.parent.resolve() / path.name))
    try:
        descriptor = _lock(path, key)
        ours = descriptor is not None
    except (ImportError, OSError):
        ours = unsure
    try:
        yield ours
    finally:
        if descriptor is not None:
            with _GUARD:
                if key[0] == os.getpid():  # what was forked inside holds nothing
                    path.unlink(missing_ok=True)
                    _HELD.discard(key)
                os.close(descriptor)


_HELD: set[tuple[int, str]] = set()
"""Lock files of this process, which the system would let it lock once more, and free when the second is closed."""
_GUARD = threading.Lock()


def _lock(path: Path, key: tuple[int, str]) -> int | None:
    """The descriptor of a lock file that is ours now; None where somebody else has it.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
        ImportError: the system has none.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with _GUARD:
        while key not in _HELD:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = path.stat()
            except FileNotFoundError:  # who had it removed it after we opened it: that file keeps nobody out any more
                os.close(descriptor)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK):
                    return None
                raise
            else:
                if os.path.samestat(found, os.fstat(descriptor)):
                    _HELD.add(key)
                    return descriptor
                os.close(descriptor)  # likewise, and there is a new one already
    return None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    full = DiskFullError(f"the disk is full while writing {path}", "free some space and run the same command again")
    try:
        yield
    except DiskFullError as error:  # of a file inside, whose temporary place means nothing to anybody
        raise full from error
    except SpeechFTError:
        raise
    except Exception as error:
        number = _system_error(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise full from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise SpeechFTError(f"{path} cannot be written", "choose another folder with --out") from error
        if number in (errno.ENOTDIR, errno.EEXIST) and any(one.is_file() for one in path.parents):
            file = next(one for one in path.parents if one.is_file())
            raise SpeechFTError(
                f"{path} cannot be written, for {file} is a file", "move it, or choose another folder"
            ) from error
        raise


def _system_error(error: BaseException | None) -> int | None:
    """The system's number of an error; writers of torch and safetensors raise their own after it, or name it alone."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        if f"(os error {errno.ENOSPC})" in str(error):
            return errno.ENOSPC
        error = error.__cause__ or error.__context__
    return None


def save_torch(content: Any, path: Path) -> None:
    """`torch.save` that raises the system's own error: given a path, torch does not say why it could not write."""
    import torch

    with path.open("wb") as file:
        torch.save(content, file)


@contextlib.contextmanager
def whole_file(path: str | Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes ``path``, on any error it is removed.

    Args:
        flush: whether to wait until it is on the disk, so that a power failure leaves it whole, too. Not needed for
            what can be made again and is checked whenever it is read.

    Raises:
        SpeechFTError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = _partial(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _settle(temporary, flush)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> bool:
    """Give two paths each other's name in one step, so that both exist at every moment; False where that is unknown."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # Linux; glibc since 2.28
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def begin_writing(descriptor: int, start: int, size: int) -> None:
    """Have the system begin to write a part of a file to the disk, without waiting for it: the flush at the end then
    has less left to do. Nothing happens where that is unknown."""
    import ctypes

    try:
        sync_file_range = ctypes.CDLL(None).sync_file_range  # Linux
    except (AttributeError, OSError):
        return
    begin = 2  # SYNC_FILE_RANGE_WRITE
    sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(size), begin)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes ``path`` (replacing an old one), on any error it is removed.

    Raises:
        SpeechFTError: the disk is full or the parent folder cannot be written.
    """
    path = Path(path)
    temporary = _partial(path)
    with _explained(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _settle(file)
            _take_place(temporary, path)
        finally:
            _remove(temporary)


def _take_place(temporary: Path, path: Path) -> None:
    """Give a finished folder its name, whoever else does so at the same time. What had the name before gets the
    temporary's, or is removed."""
    while True:
        old = _partial(path)
        if os.path.lexists(path):
            if _exchange(temporary, path):
                return
            with contextlib.suppress(FileNotFoundError):
                path.replace(old)
        try:
            temporary.replace(path)
            _remove(old)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _remove(old)  # another folder took the name in between


def write_text(path: str | Path, text: str, flush: bool = True) -> Path:
    """Write a text file whole (UTF-8); `flush` as of `whole_file`."""
    with whole_file(path, flush) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any, flush: bool = True) -> Path:
    """Write a JSON file whole, indented, with a newline at its end; `flush` as of `whole_file`."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", flush)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        SpeechFTError: missing, or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpeechFTError(f"{path} is missing", "check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpeechFTError(f"{path} is not valid JSON ({error})", "the file is damaged; make it again") from error


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
