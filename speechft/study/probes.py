"""The probes' corpora, from tables of real speech, in the official layouts, a draw of the training parts a seed."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechft.data.audio import SAMPLE_RATE, load_audio
from speechft.data.shares import split_position
from speechft.errors import UsageError
from speechft.files import whole_folder, write_text
from speechft.study.plan import Sizes

Row = dict[str, str]


@dataclass(frozen=True)
class Tables:
    """Where the speech is: tables with a header, and paths in them that start from their own folders.

    Attributes:
        fine_tuning: id, path, seconds, speaker, split, text, phones. Half of its speakers are fine-tuned on, the others
            are PR's and characters' (speechocean762).
        speakers: id, path, seconds, speaker, part (LibriSpeech): SID, and ASV with its part `test-other` as trials.
        digits: id, path, speaker, digit (the Free Spoken Digit Dataset).
    """

    fine_tuning: Path
    speakers: Path
    digits: Path

    @classmethod
    def under(cls, folder: Path) -> Tables:
        """The tables in a folder that has all three.

        Raises:
            UsageError: one is missing.
        """
        names = ("speechocean762", "librispeech_mini", "fsdd")
        paths = [folder / name / "utterances.tsv" for name in names]
        absent = [str(path) for path in paths if not path.is_file()]
        if absent:
            raise UsageError(f"the study's tables are missing: {', '.join(absent)}", "see scripts/study --help")
        return cls(*paths)


def arrange(tables: Tables, sizes: Sizes, seed: int, folder: Path) -> Path:
    """Write the corpora of one seed, unless they are there: what each probe reads is named by `paths`."""
    if folder.is_dir():
        return folder
    with whole_folder(folder) as out:
        _phones(_read(tables.fine_tuning), tables.fine_tuning.parent, sizes, seed, out)
        _speakers(_read(tables.speakers), tables.speakers.parent, sizes, seed, out / "sid")
        _digits(_read(tables.digits), tables.digits.parent, sizes, seed, out / "digits")
        _trials(_read(tables.speakers), tables.speakers.parent, sizes, seed, out / "asv")
    return folder


def paths(folder: Path, probe: str) -> list[str]:
    """Overrides of `configs/eval.yaml` that name the corpora of a probe."""
    if probe in ("pr", "characters"):
        units = "phones" if probe == "pr" else "characters"
        return [f"data.librispeech={folder / units}", f"data.lexicon={folder}/lexicon-{units}.txt",
                f"data.phones={folder}/{units}.txt"]  # fmt: skip
    return [f"data.voxceleb1={folder / probe}"]


def _read(table: Path) -> list[Row]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _by_speaker(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["speaker"]].append(row)
    return dict(found)


def _write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, SAMPLE_RATE)


def _phones(rows: list[Row], source: Path, sizes: Sizes, seed: int, out: Path) -> None:
    """LibriSpeech's layout twice, of the speakers that are not fine-tuned on: phones as transcripts, and words.

    The lexicon has every phone as itself, and every word as its characters.
    """
    kept = [row for row in rows if split_position(row["speaker"]) >= 0.5]
    for units, column in (("phones", "phones"), ("characters", "text")):
        words = sorted({word for row in rows for word in row[column].upper().split()})
        spelt = {word: [word] if units == "phones" else list(word) for word in words}
        write_text(out / f"lexicon-{units}.txt", "".join(f"{word}\t{' '.join(spelt[word])}\n" for word in words))
        vocabulary = sorted({unit for own in spelt.values() for unit in own})
        write_text(out / f"{units}.txt", "".join(f"{unit}\n" for unit in vocabulary))
    by_speaker = _by_speaker(row for row in kept if float(row["seconds"]) <= sizes.pr_seconds)
    speakers = sorted(by_speaker, key=split_position)
    draw = random.Random(seed)
    for number, speaker in enumerate(speakers):
        part = 0 if number < 0.7 * len(speakers) else 1 if number < 0.8 * len(speakers) else 2
        own, count = by_speaker[speaker], sizes.pr[part]
        chosen = draw.sample(own, min(count, len(own))) if part == 0 else own[:count]
        for corpus, column in (("phones", "phones"), ("characters", "text")):
            folder = out / corpus / ("train-clean-100", "dev-clean", "test-clean")[part] / speaker / "1"
            lines = []
            for row in chosen:
                name = f"{speaker}-1-{own.index(row):04d}"
                _write(folder / f"{name}.flac", load_audio(source / row["path"]).numpy())
                lines.append(f"{name} {row[column].upper()}\n")
            write_text(folder / f"{speaker}-1.trans.txt", "".join(lines))


def _spread(wave: np.ndarray, count: int, seconds: float) -> list[np.ndarray]:
    """`count` pieces of a recording, as far apart as they can be."""
    length = round(seconds * SAMPLE_RATE)
    starts = np.linspace(0, len(wave) - length, count).astype(int)
    return [wave[start : start + length] for start in starts]


def _iden_split(out: Path, items: Sequence[tuple[int, str, np.ndarray]]) -> None:
    """VoxCeleb1's layout: part (1 train, 2 dev, 3 test), name below `dev/wav`, samples."""
    for _, name, wave in items:
        _write(out / "dev" / "wav" / name, wave)
    write_text(out / "iden_split.txt", "".join(f"{part} {name}\n" for part, name, _ in items))


def _speakers(rows: list[Row], source: Path, sizes: Sizes, seed: int, out: Path) -> None:
    """SID: pieces of one recording each, every other one for testing."""
    pieces = 2 * sizes.sid[2]
    rows = [
        row
        for row in rows
        if float(row["seconds"]) >= 1.05 * pieces * sizes.sid_seconds and row["part"] != "test-other"
    ]
    rows = sorted(rows, key=lambda row: split_position(row["speaker"]))[: sizes.sid_speakers]
    draw, items = random.Random(seed), []
    for number, row in enumerate(rows):
        waves = _spread(load_audio(source / row["path"]).numpy(), pieces, sizes.sid_seconds)
        pool = draw.sample(range(0, pieces, 2), sizes.sid[0] + sizes.sid[1])
        parts = {place: 1 if index < sizes.sid[0] else 2 for index, place in enumerate(pool)}
        for place, wave in enumerate(waves):
            part = 3 if place % 2 else parts.get(place)
            if part:
                items.append((part, f"id{10001 + number}/piece{place:02d}/00001.wav", wave))
    _iden_split(out, items)


def _digits(rows: list[Row], source: Path, sizes: Sizes, seed: int, out: Path) -> None:
    """SID's layout with digits for speakers; half of the real speakers for training, the last third for testing."""
    speakers = sorted({row["speaker"] for row in rows})
    draw, items = random.Random(seed), []
    for number, speaker in enumerate(speakers):
        part = 0 if number < len(speakers) // 2 else 1 if number < len(speakers) * 2 / 3 else 2
        for digit in range(10):
            own = [row for row in rows if row["speaker"] == speaker and row["digit"] == str(digit)]
            count = min(sizes.digits[part], len(own))
            for row in draw.sample(own, count) if part == 0 else own[:count]:
                name = f"id{10001 + digit}/{row['id']}/00001.wav"
                items.append((part + 1, name, load_audio(source / row["path"]).numpy()))
    _iden_split(out, items)


def _trials(rows: list[Row], source: Path, sizes: Sizes, seed: int, out: Path) -> None:
    """ASV: training speakers with pieces of two seconds; trials between recordings of the speakers of `test-other`."""
    pieces, each = sizes.asv
    long = [row for row in rows if row["part"] != "test-other" and float(row["seconds"]) >= 2.2 * pieces]
    long = sorted(long, key=lambda row: split_position(row["speaker"]))[: sizes.sid_speakers]
    draw = random.Random(seed)
    for number, row in enumerate(long):
        wave = load_audio(source / row["path"]).numpy()
        offset = draw.randrange(SAMPLE_RATE)  # other pieces for each seed
        for place, piece in enumerate(_spread(wave[offset:], pieces, 2.0)):
            _write(out / "dev" / "wav" / f"id{10001 + number}" / f"piece{place:02d}" / "00001.wav", piece)
    tested = _by_speaker(row for row in rows if row["part"] == "test-other")
    names: dict[str, list[str]] = {}
    for number, (speaker, own) in enumerate(sorted(tested.items())):
        for row in own:
            name = f"id{20001 + number}/{row['id']}/00001.wav"
            _write(out / "test" / "wav" / name, load_audio(source / row["path"]).numpy()[: 4 * SAMPLE_RATE])
            names.setdefault(speaker, []).append(name)
    fixed, lines = random.Random(0), []
    for speaker, own_names in names.items():
        others = [name for other, theirs in names.items() if other != speaker for name in theirs]
        for name in own_names:
            same = [one for one in own_names if one != name]
            lines += [f"1 {name} {other}\n" for other in fixed.sample(same, min(each, len(same)))]
            lines += [f"0 {name} {other}\n" for other in fixed.sample(others, min(each, len(others)))]
    write_text(out / "voxceleb1_test_v2.txt", "".join(lines))
