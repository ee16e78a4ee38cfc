"""LibriSpeech with phone labels: what s3prl/downstream/ctc/data.py imports as `ctc.corpus.libriphone`.

The corpus is LibriSpeech's own layout (`SPLIT/SPK/CHAP/SPK-CHAP-UTT.flac` beside `SPK-CHAP.trans.txt`); a lexicon line
is `WORD PH PH ...`, separated by spaces or tabs. A word's first pronunciation is taken, files in the order given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechft.data.lexicon import pronounce, read_lexicon
from speechft.errors import SpeechFTError
from speechft.superb.readers.buckets import Buckets

_CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_AUDIO = (".flac", ".wav", ".ogg", ".mp3")


def official_phones() -> list[str]:
    """SUPERB's 71: silence, spoken noise, then 24 consonants and 15 vowels with stress 0-2, sorted together."""
    return ["SIL", "SPN", *sorted([*_CONSONANTS, *(vowel + stress for vowel in _VOWELS for stress in "012")])]


def read_phones(path: str | Path) -> list[str]:
    """A vocabulary file: one phone a line, blank lines skipped.

    Raises:
        SpeechFTError: unreadable, empty, or a phone twice.
    """
    try:
        phones = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SpeechFTError(f"phone list {path} cannot be read ({error})", "check data.phones") from error
    if not phones or len(set(phones)) != len(phones):
        raise SpeechFTError(f"phone list {path} is empty or names a phone twice", "one phone a line, each once")
    return phones


def vocabulary(lexicon: dict[str, list[str]]) -> list[str]:
    """The official 71 phones if they cover the lexicon, else the phones the lexicon uses, sorted."""
    used = {phone for phones in lexicon.values() for phone in phones}
    official = official_phones()
    return official if used <= set(official) else sorted(used)


def listed(folder: Path) -> Iterator[tuple[Path, str, Path | None, str]]:
    """What the transcripts of a split name: transcript, utterance, its audio file (None if it is not there), sentence.

    Raises:
        SpeechFTError: a transcript that is no text.
    """
    for transcript in sorted(folder.rglob("*.trans.txt")):
        try:
            lines = transcript.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SpeechFTError(
                f"transcript {transcript} cannot be read ({error})", "unpack LibriSpeech again"
            ) from error
        for line in lines:
            name, _, sentence = line.strip().partition(" ")
            if name:
                candidates = (transcript.parent / f"{name}{suffix}" for suffix in _AUDIO)
                yield transcript, name, next((path for path in candidates if path.is_file()), None), sentence


def find_utterances(root: str | Path, splits: Sequence[str]) -> list[tuple[Path, str]]:
    """Audio files with their transcripts, sorted by path.

    Raises:
        SpeechFTError: a split that is missing or empty, an empty transcript, or one without its audio file.
    """
    found: list[tuple[Path, str]] = []
    for split in splits:
        before = len(found)
        for transcript, name, audio, sentence in listed(Path(root) / split):
            if audio is None:
                raise SpeechFTError(f"{transcript} names {name}, whose audio is missing", "complete the corpus")
            if not sentence.strip():  # its every guess would be an error of nothing
                raise SpeechFTError(
                    f"utterance {name} has an empty transcript ({transcript})", "mend it, or take out line and audio"
                )
            found.append((audio, sentence))
        if len(found) == before:
            raise SpeechFTError(
                f"{Path(root) / split} holds no *.trans.txt", "check data.librispeech and the names of its splits"
            )
    return sorted(found)


class LibriPhoneDataset(Buckets):
    """Utterances from the longest to the shortest label sequence (see `Buckets`).

    Args:
        split: names of folders under `path`, or one name.
        tokenizer: s3prl's word encoder.
        bucket_size: elements of a training batch.
        path: the LibriSpeech folder.
        lexicon: one or more files.
        ascending: shortest first.

    Raises:
        SpeechFTError: words missing from the lexicon (the first five are named), phones missing from the vocabulary,
            a damaged corpus.
    """

    def __init__(
        self,
        split: str | Sequence[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        lexicon: Sequence[str],
        ascending: bool = False,
        **_: Any,
    ) -> None:
        words = read_lexicon(lexicon)
        utterances = find_utterances(path, [split] if isinstance(split, str) else list(split))
        unknown = sorted({word for _, text in utterances for word in text.upper().split() if word not in words})
        if unknown:
            shown = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
            raise SpeechFTError(
                f"{len(unknown)} words of {path} are not in the lexicon: {shown}",
                "add them to a lexicon file, or give a further one: data.lexicon=[FIRST,SECOND]",
            )
        phones = [pronounce(text, words) for _, text in utterances]
        strange = sorted({p for sequence in phones for p in sequence if tokenizer.vocab_to_idx(p) == tokenizer.unk_idx})
        if strange:
            raise SpeechFTError(f"phones outside the vocabulary: {', '.join(strange[:5])}", "correct data.phones")
        encoded = [
            (audio, tokenizer.encode(" ".join(labels))) for (audio, _), labels in zip(utterances, phones, strict=True)
        ]
        super().__init__(encoded, bucket_size, ascending)
