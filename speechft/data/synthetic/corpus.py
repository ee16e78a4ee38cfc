"""The synthetic corpus as a whole: made once for a size and a seed, cached, and opened from then on."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechft.console import progress as counter
from speechft.data.audio import SAMPLE_RATE
from speechft.data.synthetic.layouts import Clip, Plan, plan_corpus
from speechft.data.synthetic.phones import make_lexicon
from speechft.data.synthetic.render import render_files
from speechft.data.synthetic.sizes import CorpusSize, size_named
from speechft.errors import SpeechFTError
from speechft.files import cache_dir, read_json, sha256_json, whole_folder, write_json

GENERATOR_VERSION = 2
"""Goes up whenever the same size and seed would give other samples or other files."""

_DESCRIPTION = "corpus.json"
_CHUNK = 16


@dataclass(frozen=True)
class SyntheticCorpus:
    """A corpus on the disk.

    Args:
        root: its folder.
        librispeech: holds ``train-other-500/`` and the other splits.
        lexicon: lines of ``WORD<tab>P H O N E S``.
        phones: the phones that occur in the lexicon, one a line.
        voxceleb1: holds ``dev/wav/id10001/...``; None where the size has no such part.
        iden_split: lines of ``1 id10001/SESSION/00001.wav``: 1 train, 2 dev, 3 test.
        speech_commands: training and validation clips and background noise.
        speech_commands_test: the twelve folders of test clips.
        info: seconds, utterances and speakers of every part, the seed and the size.
    """

    root: Path
    librispeech: Path
    lexicon: Path
    phones: Path
    voxceleb1: Path | None
    iden_split: Path | None
    speech_commands: Path | None
    speech_commands_test: Path | None
    info: dict[str, Any]

    @classmethod
    def open(cls, root: str | Path) -> SyntheticCorpus:
        """Open a corpus that ``make_corpus`` made.

        Raises:
            SpeechFTError: the folder holds none.
        """
        root = Path(root)
        if not (root / _DESCRIPTION).is_file():
            raise SpeechFTError(f"{root} holds no synthetic corpus ({_DESCRIPTION} is missing)", "make it again")

        def part(name: str) -> Path | None:
            return root / name if (root / name).exists() else None

        return cls(
            root=root,
            librispeech=root / "librispeech",
            lexicon=root / "lexicon.txt",
            phones=root / "phones.txt",
            voxceleb1=part("voxceleb1"),
            iden_split=part("iden_split.txt"),
            speech_commands=part("speech_commands"),
            speech_commands_test=part("speech_commands_test"),
            info=read_json(root / _DESCRIPTION),
        )


def corpus_folder(size: str | CorpusSize = "demo", seed: int = 0, root: Path | None = None) -> Path:
    """Where a corpus lies, whether it is made yet or not."""
    size = size_named(size)
    root = cache_dir() / "synthetic" if root is None else Path(root)
    digest = sha256_json({"size": asdict(size), "version": GENERATOR_VERSION})
    return root / f"{size.name}-seed{seed}-{digest[:8]}"


def make_corpus(
    size: str | CorpusSize = "demo",
    seed: int = 0,
    root: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticCorpus:
    """Make a corpus, or open it if it is there already.

    The samples depend on the size and the seed only, not on the number of processes. More than one process needs a
    script whose work starts under ``if __name__ == "__main__":``, as always with Python's process pools.

    Args:
        size: ``tiny``, ``smoke``, ``demo``, ``pretrain`` or a size of one's own.
        seed: another seed, another corpus.
        root: the folder that holds the corpora; ``synthetic`` in the cache folder by default.
        jobs: worker processes; one for every processor by default. 1 works in this process.
        progress: called with the clips made and the clips in all; None shows a counter.

    Raises:
        MissingExtraError: the package ``espeakng-loader`` is not installed.
        UsageError: no size has that name.
        SpeechFTError: the disk is full, or a clip came out empty.
    """
    size = size_named(size)
    folder = corpus_folder(size, seed, root)
    if (folder / _DESCRIPTION).is_file():
        return SyntheticCorpus.open(folder)
    # Fail for want of the package here, in words, and not in a worker.
    from speechft.data.synthetic.espeak import require_espeak

    require_espeak()
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):  # several processes may want it at the same time
        if not (folder / _DESCRIPTION).is_file():
            jobs = jobs or os.cpu_count() or 1
            if progress is not None:
                _make(size, seed, folder, jobs, progress)
            else:
                with counter("making the synthetic corpus", 100) as advance:
                    _make(size, seed, folder, jobs, lambda done, total: advance(100 * done // max(1, total), "%"))
    return SyntheticCorpus.open(folder)


def _make(size: CorpusSize, seed: int, folder: Path, jobs: int, progress: Callable[[int, int], None] | None) -> None:
    for leftover in folder.parent.glob(f".partial-{folder.name}-*"):  # of a killed process: the lock is ours
        shutil.rmtree(leftover, ignore_errors=True)
    plan = plan_corpus(size, seed)
    with whole_folder(folder) as temporary:
        lengths = _render_all(plan.clips, seed, temporary, jobs, progress)
        lexicon = make_lexicon()
        texts = dict(plan.texts)
        texts["lexicon.txt"] = "".join(f"{word}\t{' '.join(phones)}\n" for word, phones in lexicon.items())
        texts["phones.txt"] = "".join(f"{phone}\n" for phone in sorted({p for ps in lexicon.values() for p in ps}))
        for path, text in texts.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8", newline="\n")
        write_json(temporary / _DESCRIPTION, _describe(plan, lengths, size, seed))


def _chunks(clips: list[Clip]) -> Iterator[tuple[int, list[Clip]]]:
    for start in range(0, len(clips), _CHUNK):
        yield start, clips[start : start + _CHUNK]


def _render_all(
    clips: list[Clip], seed: int, root: Path, jobs: int, progress: Callable[[int, int], None] | None
) -> list[int]:
    """Render all clips in ``jobs`` processes; returns their lengths in samples, in the clips' order."""
    lengths = [0] * len(clips)
    done = 0

    def finished(start: int, made: list[int]) -> None:
        nonlocal done
        lengths[start : start + len(made)] = made
        done += len(made)
        if progress is not None:
            progress(done, len(clips))

    if jobs == 1 or len(clips) <= _CHUNK:
        for start, chunk in _chunks(clips):
            finished(start, render_files(chunk, seed, root))
        return lengths
    # Not forked: a caller with threads (torch has some) could hang its children.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        futures: dict[Future[list[int]], int] = {
            pool.submit(render_files, chunk, seed, root): start for start, chunk in _chunks(clips)
        }
        try:
            for future in as_completed(futures):
                finished(futures[future], future.result())
        except BaseException:
            # Wait for the clips in hand: they would write into a folder that is being removed.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return lengths


def _describe(plan: Plan, lengths: list[int], size: CorpusSize, seed: int) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {}
    speakers: dict[str, set[str]] = {}
    for clip, length in zip(plan.clips, lengths, strict=True):
        part = parts.setdefault(clip.part, {"utterances": 0, "seconds": 0.0, "speakers": 0})
        part["utterances"] += 1
        part["seconds"] += length / SAMPLE_RATE
        speakers.setdefault(clip.part, set()).update({clip.speaker} - {""})
    for name, part in parts.items():
        part["seconds"] = round(part["seconds"], 2)
        part["speakers"] = len(speakers[name])
    return {"size": asdict(size), "seed": seed, "generator_version": GENERATOR_VERSION, "parts": parts}
