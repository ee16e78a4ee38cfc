"""scripts/arrange: a table of speech in the official layouts, by their definition."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small import tone

from speechft.data.corpora import speaker_position

SCRIPT = Path(__file__).parents[2] / "scripts" / "arrange"
SPEAKERS = ("s1", "s2", "s3", "s4", "s5")
SPLITS = ("train", "train", "train", "dev", "test")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("speech")
    rows = []
    for speaker in SPEAKERS:
        for number, split in enumerate(SPLITS):
            name = f"{speaker}-{number}"
            soundfile.write(root / f"{name}.wav", tone(0.5, 200.0 + 40 * number, seed=number), 16_000)
            rows.append({"id": name, "path": f"{name}.wav", "speaker": speaker, "phones": "AH B", "split": split})
    with (root / "utterances.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return root / "utterances.tsv"


def _arrange(table: Path, out: Path, *options: str) -> list[tuple[int, str]]:
    subprocess.run([sys.executable, SCRIPT, table, out, *options], check=True, capture_output=True)
    lines = (out / "voxceleb1" / "iden_split.txt").read_text().splitlines()
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def test_speakers_are_apart_for_pr_and_together_for_sid(table, tmp_path):
    split = _arrange(table, tmp_path / "out", "--few", "2")
    folders = {
        path.name: {speaker.name for speaker in path.iterdir()} for path in (tmp_path / "out/librispeech").iterdir()
    }
    assert set().union(*folders.values()) == set(SPEAKERS) and sum(map(len, folders.values())) == len(SPEAKERS)
    assert len(folders["train-clean-100"]) == 4 and len(folders["test-clean"]) == 1
    assert (tmp_path / "out/lexicon.txt").read_text() == "AH\tAH\nB\tB\n"
    for identity in {name.split("/")[0] for _, name in split}:
        parts = [part for part, name in split if name.startswith(identity)]
        assert sorted(parts) == [1, 1, 2, 3, 3]  # the third training utterance went to the test set
    assert all((tmp_path / "out/voxceleb1/dev/wav" / name).is_file() for _, name in split)


def test_a_share_of_the_speakers_and_channels_of_their_own(table, tmp_path):
    plain = _arrange(table, tmp_path / "plain")
    half = _arrange(table, tmp_path / "half", "--speakers", "0.5", "1.0")
    wanted = [speaker for speaker in SPEAKERS if speaker_position(speaker) >= 0.5]
    assert len({name.split("/")[0] for _, name in half}) == len(wanted)
    coloured = _arrange(table, tmp_path / "coloured", "--channels", "1.0")
    again = _arrange(table, tmp_path / "again", "--channels", "1.0")
    assert plain == coloured == again
    name = plain[0][1]
    waves = [
        soundfile.read(tmp_path / folder / "voxceleb1/dev/wav" / name)[0] for folder in ("plain", "coloured", "again")
    ]
    assert np.array_equal(waves[1], waves[2]) and not np.allclose(waves[0], waves[1], atol=0.01)
