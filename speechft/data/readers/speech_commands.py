"""Speech Commands (Warden, 1804.03209) as SUPERB's KS takes it: ten words, `_unknown_` and `_silence_`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from speechft.data.audio import remembered_info
from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout
from speechft.errors import SpeechFTError, UsageError

WHAT = "Speech Commands"
WHERE = (
    "unpack download.tensorflow.org/data/speech_commands_v0.01.tar.gz (data.root) and "
    "speech_commands_test_set_v0.01.tar.gz (data.test_root)"
)
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
_SILENCE_DEV = 0.1
"""Share of every noise file, at its end, whose seconds are the dev set's silence."""


def speech_commands(root: str | None = None, split: str = "train", test_root: str | None = None,
                    unknown: float = 1.0) -> list[Utterance]:  # fmt: skip
    """`WORD/SPEAKER_nohash_N.wav`; dev is validation_list.txt, train what neither list names, test a folder of its own.

    Silence is cut from `_background_noise_`, a second each, so that train and dev hear different seconds of the files.
    (s3prl draws a random second of a whole file.) The label is `keyword`; `word` is what was said.

    Args:
        root: the release: train and dev.
        test_root: the separate test set: `WORD/*.wav`, `_unknown_/*.wav`, `_silence_/*.wav`.
        unknown: the share of the other words that is kept in training, chosen by a hash of the file's name. There are
            about 17 times as many as of each keyword.
    """
    if split == "test":
        return _test(corpus_folder(test_root or "", f"{WHAT}' test set", WHERE, [UNKNOWN, SILENCE]))
    if split not in ("train", "dev"):
        raise UsageError(f"Speech Commands has no split {split!r}", "known: train, dev, test")
    folder = corpus_folder(root or "", WHAT, WHERE, ["validation_list.txt", "testing_list.txt", NOISE])
    dev, test = (set(read_lines(folder / f"{name}_list.txt", "list")) for name in ("validation", "testing"))
    utterances = []
    for word in sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))
    ):
        for path in sorted((folder / word).glob("*.wav")):
            name = f"{word}/{path.name}"
            if (name in dev) != (split == "dev") or name in test:
                continue
            if split == "train" and word not in WORDS and _place(name) >= unknown:
                continue
            utterances.append(_clip(path, word, path.name))
    if not utterances:
        raise wrong_layout(WHAT, folder, "WORD/SPEAKER_nohash_N.wav", WHERE)
    return utterances + _silence(folder, split)


def _clip(path: Path, word: str, name: str) -> Utterance:
    keyword = word if word in WORDS else UNKNOWN
    speaker = name.split("_nohash_")[0].rpartition("_")[2]
    return Utterance(
        f"{word}-{path.stem}", path, word.upper(), speaker, {"keyword": keyword, "word": word}, language="en"
    )


def _silence(folder: Path, split: str) -> list[Utterance]:
    pieces = []
    for path in sorted((folder / NOISE).glob("*.wav")):
        try:
            seconds = int(remembered_info(path).seconds)
        except SpeechFTError:
            seconds = 0  # as one piece it comes up again where all audio is looked at
        border = seconds - max(1, round(_SILENCE_DEV * seconds))
        chosen = range(border) if split == "train" else range(border, seconds)
        spans: list[tuple[float, float | None]] = [(float(start), start + 1.0) for start in chosen]
        for start, end in spans if seconds else [(0.0, None)]:
            pieces.append(
                Utterance(f"silence-{path.stem}-{start:04.0f}", path, None, None, {"keyword": SILENCE}, start, end)
            )
    return pieces


def _test(folder: Path) -> list[Utterance]:
    found = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(part.glob("*.wav")):
            if part.name == SILENCE:
                found.append(Utterance(f"silence-{path.stem}", path, None, None, {"keyword": SILENCE}))
            elif part.name == UNKNOWN:  # WORD_SPEAKER_nohash_N.wav
                word = path.name.partition("_")[0]
                labels = {"keyword": UNKNOWN, "word": word}
                speaker = path.name.split("_nohash_")[0].rpartition("_")[2]
                found.append(Utterance(f"unknown-{path.stem}", path, word.upper(), speaker, labels, language="en"))
            else:
                found.append(_clip(path, part.name, path.name))
    if not found:
        raise wrong_layout(f"{WHAT}' test set", folder, "WORD/*.wav", WHERE)
    return found


def _place(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
