"""Headers of many audio files, read in threads and kept in the cache folder as long as size and date stay the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from speechft.console import progress
from speechft.data.audio import AudioInfo, audio_info, missing_audio
from speechft.errors import SpeechFTError
from speechft.files import cache_dir, sha256_file, sha256_json, whole_file

_THREADS = 16
"""libsndfile works outside Python's lock, and on network drives most of the time is waiting."""

_Entry = list[Any]
"""`[size in bytes, changed in ns, samples, rate, channels]`, and the sha256 of the bytes where it was asked for."""


class Headers:
    """What is known of the files of a corpus. Only what is new or has changed is read; `save` keeps it.

    Args:
        paths: all files that will be asked for.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = sorted({_key(path) for path in paths})
        root = os.path.commonpath([os.path.dirname(path) for path in self._paths]) if self._paths else ""  # noqa: PTH120  a million times
        self._file = cache_dir() / "headers" / f"{sha256_json(root)[:16]}.json"
        self._known: dict[str, _Entry] = _load(self._file)
        self._errors: dict[str, SpeechFTError] = {}
        self._changed = False

    def read(self, loud: bool = True) -> None:
        """Read every header that is not known yet."""
        for path, found in in_threads("reading audio headers", self._look, self._paths, loud):
            if isinstance(found, SpeechFTError):
                self._errors[path] = found
                self._changed |= self._known.pop(path, None) is not None
            elif found is not None:
                self._known[path] = found
                self._changed = True

    def _look(self, path: str) -> _Entry | SpeechFTError | None:
        """An entry, what is wrong, or None where the known entry holds."""
        try:
            stat = os.stat(path)  # noqa: PTH116  a million times
        except OSError:
            return missing_audio(path)
        known = self._known.get(path)
        if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return None
        try:
            info = audio_info(path)
        except SpeechFTError as error:
            return error
        return [stat.st_size, stat.st_mtime_ns, info.samples, info.rate, info.channels]

    def __getitem__(self, path: Path) -> AudioInfo:
        """A file's header.

        Raises:
            SpeechFTError: the file is missing or no audio.
        """
        key = _key(path)
        if key in self._errors:
            raise self._errors[key]
        return AudioInfo(*self._known[key][2:5])

    def size(self, path: Path) -> int | None:
        """Bytes of a file; None for one that could not be read."""
        entry = self._known.get(_key(path))
        return None if entry is None or _key(path) in self._errors else int(entry[0])

    def contents(self, paths: Sequence[Path], loud: bool = True) -> Mapping[Path, str]:
        """The sha256 of each file's bytes; files that cannot be read are left out."""
        wanted = [key for path in paths if len(self._known.get(key := _key(path), [])) == 5]
        for path, digest in in_threads("comparing audio", _digest, wanted, loud):
            if digest is not None:
                self._known[path].append(digest)
                self._changed = True
        return {path: entry[5] for path in paths if len(entry := self._known.get(_key(path), [])) == 6}

    def save(self) -> None:
        """Keep what is known. A cache that cannot be written is no reason to stop."""
        if not self._changed:
            return
        try:
            with whole_file(self._file) as temporary:
                temporary.write_text(json.dumps(self._known, separators=(",", ":")), encoding="utf-8")
        except (SpeechFTError, OSError):
            return
        self._changed = False


def _key(path: Path | str) -> str:
    return os.path.abspath(path)  # noqa: PTH100  a million times


def _load(file: Path) -> dict[str, _Entry]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(path: str) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None


def in_threads(title: str, work: Callable[[str], Any], paths: Sequence[str], loud: bool) -> list[tuple[str, Any]]:
    """`work` of every path, in order, with a counter on stderr."""
    results = []
    with ThreadPoolExecutor(_THREADS) as pool:
        mapped = pool.map(work, paths)
        if not loud:
            return list(zip(paths, mapped, strict=True))
        with progress(title, len(paths)) as advance:
            for path, result in zip(paths, mapped, strict=True):
                results.append((path, result))
                if len(results) % 256 == 0 or len(results) == len(paths):
                    advance(len(results), "")
    return results
