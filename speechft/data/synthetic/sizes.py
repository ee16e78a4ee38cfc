"""How much of everything: the named sizes of the synthetic corpus."""

from __future__ import annotations

from dataclasses import dataclass

from speechft.errors import UsageError


@dataclass(frozen=True)
class Split:
    """``utterances`` shared out evenly among ``speakers``."""

    utterances: int
    speakers: int


@dataclass(frozen=True)
class CorpusSize:
    """Everything that decides how much is made.

    Args:
        name: part of the folder's name.
        train_other_500: speech to pre-train on, without the speakers of any other part.
        dev_other: the same, held out.
        train_clean_100: speech with transcripts.
        dev_clean: the same, for choosing.
        test_clean: the same, for testing.
        words: fewest and most words of a sentence.
        sid_speakers: speakers to identify; 0 leaves the part out.
        sid_train: utterances of each to train on.
        sid_dev: the same, for choosing.
        sid_test: the same, for testing.
        keyword_train: clips of each keyword to train on; 0 leaves the part out.
        keyword_dev: the same, for choosing.
        keyword_test: the same, for testing; also of ``_unknown_`` and ``_silence_``.
        unknown_train: clips of other words to train on, together.
        unknown_dev: the same, for choosing.
        keyword_repeats: how often a speaker says a keyword in training.
        noise_seconds: length of each file of background noise.
    """

    name: str
    train_other_500: Split | None
    dev_other: Split | None
    train_clean_100: Split | None = None
    dev_clean: Split | None = None
    test_clean: Split | None = None
    words: tuple[int, int] = (3, 8)
    sid_speakers: int = 0
    sid_train: int = 0
    sid_dev: int = 0
    sid_test: int = 0
    keyword_train: int = 0
    keyword_dev: int = 0
    keyword_test: int = 0
    unknown_train: int = 0
    unknown_dev: int = 0
    keyword_repeats: int = 2
    noise_seconds: float = 10.0

    def splits(self) -> dict[str, Split]:
        """The splits in LibriSpeech's layout that this size has, by folder name."""
        named = {
            "train-other-500": self.train_other_500,
            "dev-other": self.dev_other,
            "train-clean-100": self.train_clean_100,
            "dev-clean": self.dev_clean,
            "test-clean": self.test_clean,
        }
        return {name: split for name, split in named.items() if split is not None}


TINY = CorpusSize(
    "tiny",
    train_other_500=Split(24, 4),
    dev_other=Split(8, 2),
    train_clean_100=Split(24, 4),
    dev_clean=Split(8, 2),
    test_clean=Split(8, 2),
    sid_speakers=4,
    sid_train=4,
    sid_dev=2,
    sid_test=2,
    keyword_train=4,
    keyword_dev=2,
    keyword_test=2,
    unknown_train=8,
    unknown_dev=4,
    noise_seconds=4.0,
)
SMOKE = CorpusSize(
    "smoke",
    train_other_500=Split(160, 16),
    dev_other=Split(24, 4),
    train_clean_100=Split(48, 8),
    dev_clean=Split(12, 4),
    test_clean=Split(24, 6),
    sid_speakers=6,
    sid_train=6,
    sid_dev=2,
    sid_test=4,
    keyword_train=8,
    keyword_dev=2,
    keyword_test=4,
    unknown_train=16,
    unknown_dev=4,
    noise_seconds=4.0,
)
DEMO = CorpusSize(
    "demo",
    train_other_500=Split(700, 40),
    dev_other=Split(40, 10),
    train_clean_100=Split(240, 40),
    dev_clean=Split(30, 10),
    test_clean=Split(240, 30),
    sid_speakers=50,
    sid_train=8,
    sid_dev=1,
    sid_test=8,
    keyword_train=40,
    keyword_dev=4,
    keyword_test=32,
    unknown_train=80,
    unknown_dev=8,
)
PRETRAIN = CorpusSize("pretrain", train_other_500=Split(6000, 400), dev_other=Split(100, 20), words=(4, 12))

SIZES = {size.name: size for size in (TINY, SMOKE, DEMO, PRETRAIN)}


def size_named(size: str | CorpusSize) -> CorpusSize:
    """A size by its name; a size itself is returned as it is.

    Raises:
        UsageError: no size has that name.
    """
    if isinstance(size, CorpusSize):
        return size
    if size not in SIZES:
        raise UsageError(f"the synthetic corpus has no size {size!r}", f"choose one of {', '.join(SIZES)}")
    return SIZES[size]
