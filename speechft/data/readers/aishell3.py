"""AISHELL-3 (Shi et al., Interspeech 2021): Mandarin, many speakers, 44.1 kHz."""

from __future__ import annotations

from pathlib import Path

from speechft.data.readers.base import Utterance, corpus_folder, read_lines, wrong_layout

WHAT = "AISHELL-3"
WHERE = "get data_aishell3.tgz from openslr.org/93 and give the folder that holds train/ and test/"


def aishell3(root: str, split: str) -> list[Utterance]:
    """`SPLIT/wav/SPEAKER/UTT.wav` and `SPLIT/content.txt`; genders from `spk-info.txt`.

    The text is the characters; the label `pinyin` has a syllable with its tone for each of them, separated by spaces.

    Args:
        split: `train` or `test`; there is no official dev set.
    """
    folder = corpus_folder(root, WHAT, WHERE, [f"{split}/content.txt", f"{split}/wav"])
    genders = _genders(folder / "spk-info.txt")
    utterances = []
    for line in read_lines(folder / split / "content.txt", "transcripts"):
        name, _, content = line.strip().partition("\t")  # UTT.wav TAB CHARACTER PINYIN CHARACTER PINYIN ...
        mixed = content.split()
        speaker = name[:7]
        utterances.append(
            Utterance(name.removesuffix(".wav"), folder / split / "wav" / speaker / name, "".join(mixed[::2]), speaker,
                      {"pinyin": " ".join(mixed[1::2])}, gender=genders.get(speaker), language="zh")
        )  # fmt: skip
    if not utterances:
        raise wrong_layout(WHAT, folder / split, "content.txt with lines `UTT.wav<tab>CHARACTER PINYIN ...`", WHERE)
    return utterances


def _genders(path: Path) -> dict[str, str]:
    """Speaker -> `f` or `m`; lines are `SPEAKER<tab>AGE GROUP<tab>GENDER<tab>ACCENT`."""
    if not path.is_file():
        return {}
    rows = [line.split() for line in read_lines(path, "speaker list") if not line.startswith("#")]
    return {row[0]: row[2][:1].lower() for row in rows if len(row) > 2}
