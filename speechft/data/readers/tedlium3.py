"""TED-LIUM 3 (Hernandez et al., SPECOM 2018): talks of many minutes, of which the STM files name the utterances."""

from __future__ import annotations

from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout
from speechft.errors import SpeechFTError

WHAT = "TED-LIUM 3"
WHERE = "get TEDLIUM_release-3.tgz from openslr.org/51 and give the folder that holds legacy/"
_NOT_SCORED = "ignore_time_segment_in_scoring"


def tedlium3(root: str, split: str, distribution: str = "legacy", unknown: bool = False) -> list[Utterance]:
    """`DISTRIBUTION/SPLIT/stm/TALK.stm` and `sph/TALK.sph`, in the order of the talks' names and of their lines.

    The order of names is this reader's choice. The paper took its ten hours in the order of another copy of the corpus,
    which does not say how it was ordered, so they are not the same utterances.

    Args:
        distribution: `legacy` (dev and test of TED-LIUM 2) or `speaker-adaptation`.
        unknown: keep utterances with `<unk>`; the paper leaves them out.
    """
    folder = corpus_folder(root, WHAT, WHERE, [f"{distribution}/{split}/stm"])
    part = folder / distribution / split
    utterances = []
    for transcript in sorted((part / "stm").glob("*.stm")):
        audio = _audio(part, folder, transcript.stem)
        for number, line in enumerate(read_lines(transcript, "transcript")):
            # TALK CHANNEL SPEAKER START END <CONDITIONS,...,GENDER> WORDS
            fields = line.split(maxsplit=6)
            if line.startswith(";;") or (len(fields) == 7 and fields[6] == _NOT_SCORED):
                continue
            try:
                talk, _, speaker, start, end, marks = fields[:6]
                first, last = float(start), float(end)
            except ValueError as error:
                raise SpeechFTError(
                    f"{transcript} line {number + 1} is no STM: {line[:60]!r}", "get the corpus's own file again"
                ) from error
            text = fields[6] if len(fields) == 7 else ""
            if "<unk>" in text and not unknown:
                continue
            gender = marks.strip("<>").rpartition(",")[2].lower()[:1]
            utterances.append(
                Utterance(f"{talk}-{number}", audio, text, speaker, start=first, end=last, language="en",
                          gender=gender if gender in ("f", "m") else None)
            )  # fmt: skip
    if not utterances:
        raise wrong_layout(WHAT, part, "stm/TALK.stm and sph/TALK.sph", WHERE)
    return utterances


def _audio(part: Path, root: Path, talk: str) -> Path:
    """The talk's audio: SPHERE in the split's own folder, or in `data/sph`, or converted beside it."""
    places = [part / "sph" / f"{talk}.sph", root / "data" / "sph" / f"{talk}.sph",
              *(part / "sph" / f"{talk}{suffix}" for suffix in (".wav", ".flac")),
              *(part / suffix / f"{talk}.{suffix}" for suffix in ("wav", "flac"))]  # fmt: skip
    return next((path for path in places if path.exists()), places[0])
