"""Audio SNIPS with slots: what s3prl/downstream/ctc/data.py imports as `ctc.corpus.snips`.

The corpus is SUPERB's own layout: `{train,valid,test}/**/SPEAKER-snips-SPLIT-N.wav` and `all.iob.snips.txt`, a line of
which is a file's name, the words between `BOS` and `EOS`, a tab, and as many slot names (`O` for none) before the
intent (s3prl/dataio/corpus/snips.py reads the same).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.superb.readers.buckets import Buckets

TRANSCRIPTS = "all.iob.snips.txt"


def read_transcripts(path: str | Path) -> dict[str, str]:
    """File name without suffix -> the rest of its line, as s3prl's `CharacterTextSlotEncoder` takes it.

    Raises:
        SpeechFTError: unreadable.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpeechFTError(f"transcripts {path} cannot be read ({error})", "check data.snips") from error
    pairs = (line.strip().partition(" ") for line in lines)
    return {name: sentence for name, _, sentence in pairs if name}


def slots_of(sentence: str) -> list[str]:
    """The slot name of each word.

    Raises:
        SpeechFTError: not of the form `BOS words EOS<tab>O slots intent`.
    """
    words, tab, slots = sentence.partition("\t")
    if not tab or "\t" in slots:
        raise SpeechFTError(f"a line of {TRANSCRIPTS} has no slots: {words[:40]!r}", "words, a tab, slots and intent")
    return slots.split(" ")[1:-1]


def absent(root: Path, folder: str, speakers: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of the transcripts' names that are of these speakers in `folder` and have no audio there.

    s3prl passes over them, so a copy that was cut short would be scored on what is left and look complete.
    """
    there = {wav.stem for wav in (root / folder).rglob("*.wav")}
    begins = tuple(f"{speaker}-snips-{folder}-" for speaker in speakers)
    return [name for name in names if name.startswith(begins) and name not in there]


class SnipsDataset(Buckets):
    """Utterances of a split's speakers, from the longest to the shortest label sequence (see `Buckets`).

    Audio without a transcript is passed over, as by s3prl.

    Args:
        split: names of folders under `path`; the speakers are those of the argument `SPLIT_speakers` of the first.
        tokenizer: s3prl's character and slot encoder.
        bucket_size: elements of a training batch.
        path: the SNIPS folder.
        ascending: shortest first.
        others: `train_speakers`, `valid_speakers`, `test_speakers`.

    Raises:
        SpeechFTError: no audio of these speakers, a damaged transcript, a slot missing from slots.txt.
    """

    def __init__(
        self,
        split: Sequence[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        ascending: bool = False,
        **others: Any,
    ) -> None:
        speakers = set(others[f"{split[0]}_speakers"])
        transcripts = read_transcripts(Path(path) / TRANSCRIPTS)
        found = _find(Path(path), split, speakers, transcripts)
        known = {"O", *(slot.partition("-")[2] for slot in tokenizer.slots)}
        strange = sorted({slot for audio in found for slot in slots_of(transcripts[audio.stem]) if slot not in known})
        if strange:
            raise SpeechFTError(
                f"slots of {TRANSCRIPTS} that {path}/slots.txt lacks: {', '.join(strange[:5])}",
                "one slot a line after the first, which is O",
            )
        encoded = [(audio, tokenizer.encode(transcripts[audio.stem])) for audio in found]
        super().__init__(encoded, bucket_size, ascending)


def _find(root: Path, split: Sequence[str], speakers: set[str], transcripts: Mapping[str, str]) -> list[Path]:
    found = []
    for name in split:
        wavs = sorted((root / name).rglob("*.wav"))
        kept = [wav for wav in wavs if wav.stem in transcripts and wav.stem.split("-")[0] in speakers]
        if not kept:
            raise SpeechFTError(
                f"none of the {len(wavs)} wav files of {root / name} has a line in {TRANSCRIPTS} and a speaker among "
                f"{', '.join(sorted(speakers))}",
                "check data.snips and superb.sf's speakers",
            )
        found += kept
    return found
