"""How long VoxCeleb1's files are once their pauses are cut out: asked for all 150 000 before ASV's training begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import cache_dir, read_json, sha256_json, write_json

_Call = tuple[Callable[..., int], tuple[Any, ...], dict[str, Any]]
_VERSION = 1  # of what is done to a file; another one does not take up old lengths


class TrimmedLengths:
    """Stands where s3prl/downstream/sv_voxceleb1/dataset.py expects `joblib.Parallel`.

    It calls the same function for each file, in threads (joblib would start processes that each load torch), and keeps
    the lengths in the cache folder: reading a corpus takes long, and every upstream asks again.

    Args:
        n_jobs: what s3prl asks for; at most so many threads.
        into: filled with path -> samples at 16 kHz.
        progress: called with files read and files in all.
    """

    def __init__(
        self, n_jobs: int, into: dict[str, int], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        self.threads = max(1, min(n_jobs, os.cpu_count() or 1))
        self.into, self.progress = into, progress

    def __call__(self, calls: Iterable[_Call]) -> list[int]:
        """Lengths in samples, in the order of the calls.

        Raises:
            SpeechFTError: a file cannot be read.
        """
        calls = list(calls)
        paths = [Path(arguments[0]) for _, arguments, _ in calls]
        stats = [path.stat() for path in paths]
        files = [[*path.parts[-3:], stat.st_size, stat.st_mtime_ns] for path, stat in zip(paths, stats, strict=True)]
        place = cache_dir() / "superb" / f"trimmed-{sha256_json([_VERSION, files])[:32]}.json"
        lengths = _kept(place, len(calls))
        if lengths is None:
            lengths = []
            with ThreadPoolExecutor(self.threads) as pool:
                for length in pool.map(_measure, calls):
                    lengths.append(length)
                    self.progress(len(lengths), len(calls))
            write_json(place, lengths)
        self.into.update(zip(map(str, paths), lengths, strict=True))
        return lengths


def _kept(place: Path, count: int) -> list[int] | None:
    try:
        lengths = read_json(place) if place.is_file() else None
    except SpeechFTError:
        return None  # damaged: measured again
    return lengths if isinstance(lengths, list) and len(lengths) == count else None


def _measure(call: _Call) -> int:
    function, arguments, keywords = call
    try:
        return int(function(*arguments, **keywords))
    except (RuntimeError, OSError, ValueError) as error:
        raise SpeechFTError(f"audio file {arguments[0]} cannot be read ({error})", "replace it") from error
