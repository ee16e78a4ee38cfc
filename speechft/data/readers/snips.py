"""Audio SNIPS as SUPERB hands it out (Lai et al., 2010.13105): sentences of SNIPS spoken by synthetic voices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout
from speechft.errors import SpeechFTError

WHAT = "Audio SNIPS"
WHERE = (
    "get SUPERB's SNIPS.zip (s3prl's SF page says where) and give the folder with all.iob.snips.txt, train, valid, test"
)
TRANSCRIPTS = "all.iob.snips.txt"


def snips(root: str, split: str, speakers: Sequence[str] | None = None) -> list[Utterance]:
    """`SPLIT/**/SPEAKER-snips-SPLIT-N.wav` and all.iob.snips.txt; labels `slots` and `intent`.

    `slots` names a slot for each word of the text, separated by spaces, `O` for none. Audio without a line in
    all.iob.snips.txt is passed over, as by s3prl.

    Args:
        split: `train`, `valid` or `test`.
        speakers: the voices to keep; null keeps all. SUPERB has other voices in each split.
    """
    folder = corpus_folder(root, WHAT, WHERE, [TRANSCRIPTS, split])
    known = read_transcripts(folder / TRANSCRIPTS)
    utterances = []
    for path in sorted((folder / split).rglob("*.wav")):
        speaker = path.stem.split("-")[0]
        if path.stem not in known or (speakers is not None and speaker not in speakers):
            continue
        words, slots, intent = split_line(known[path.stem])
        if len(words) != len(slots):
            raise SpeechFTError(f"{path.stem} has {len(words)} words and {len(slots)} slots in {TRANSCRIPTS}", WHERE)
        utterances.append(
            Utterance(path.stem, path, " ".join(words), speaker, {"slots": " ".join(slots), "intent": intent},
                      language="en")
        )  # fmt: skip
    if not utterances:
        raise wrong_layout(WHAT, folder / split, f"SPEAKER-snips-{split}-N.wav, with lines in {TRANSCRIPTS}", WHERE)
    return utterances


def read_transcripts(path: Path) -> dict[str, str]:
    """File name without suffix -> the rest of its line: `BOS WORDS EOS<tab>O SLOTS INTENT`."""
    pairs = (line.strip().partition(" ") for line in read_lines(path, "transcripts"))
    return {name: sentence for name, _, sentence in pairs}


def split_line(sentence: str) -> tuple[list[str], list[str], str]:
    """Words, slots and intent of a line.

    Raises:
        SpeechFTError: not of that form.
    """
    spoken, tab, labels = sentence.partition("\t")
    words, marks = spoken.split(), labels.split()
    if not tab or len(words) < 2 or (words[0], words[-1]) != ("BOS", "EOS") or len(marks) < 2:
        raise SpeechFTError(f"a line of {TRANSCRIPTS} has no slots: {spoken[:40]!r}", "words, a tab, slots and intent")
    return words[1:-1], marks[1:-1], marks[-1]
