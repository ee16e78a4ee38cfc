"""scripts/arrange: a table of speech in the official layouts, by their definition."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from small import tone

from speechft.data.shares import split_position

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
            rows.append(
                {"id": name, "path": f"{name}.wav", "speaker": speaker, "phones": "AH B", "split": split, "text": "ab"}
            )
    with (root / "utterances.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return root / "utterances.tsv"


def _run(*words: object) -> None:
    """The script in this process, which has imported all that it needs."""
    with patch("sys.argv", [str(SCRIPT), *map(str, words)]), patch("sys.path", [str(SCRIPT.parent), *sys.path]):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def _arrange(table: Path, out: Path, *options: str) -> list[tuple[int, str]]:
    _run(table, out, *options)
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
    wanted = [speaker for speaker in SPEAKERS if split_position(speaker) >= 0.5]
    assert len({name.split("/")[0] for _, name in half}) == len(wanted)
    coloured = _arrange(table, tmp_path / "coloured", "--channels", "1.0")
    again = _arrange(table, tmp_path / "again", "--channels", "1.0")
    assert plain == coloured == again
    name = plain[0][1]
    waves = [
        soundfile.read(tmp_path / folder / "voxceleb1/dev/wav" / name)[0] for folder in ("plain", "coloured", "again")
    ]
    assert np.array_equal(waves[1], waves[2]) and not np.allclose(waves[0], waves[1], atol=0.01)


def test_words_beside_phones_are_the_same_files(table, tmp_path):
    _arrange(table, tmp_path / "out")
    phones = sorted((tmp_path / "out" / "librispeech").rglob("*.flac"))
    words = sorted((tmp_path / "out" / "librispeech_words").rglob("*.flac"))
    assert len(words) == 25 and [path.stat().st_ino for path in words] == [path.stat().st_ino for path in phones]
    lines = [line for path in words[0].parent.glob("*.trans.txt") for line in path.read_text().splitlines()]
    assert len(lines) == 5 and all(line.split(" ", 1)[1] == "AB" for line in lines)


def test_trials_are_between_recordings_of_speakers_kept_apart(table, tmp_path):
    _arrange(table, tmp_path / "out")
    root = tmp_path / "out" / "voxceleb1_apart"
    trained, tested = ({path.name for path in (root / part / "wav").iterdir()} for part in ("dev", "test"))
    assert len(trained) == 4 and len(tested) == 1 and not trained & tested
    trials = [line.split() for line in (root / "voxceleb1_test_v2.txt").read_text().splitlines()]
    assert not trials  # one test speaker: nobody to be told apart from


def test_trials_have_the_label_of_their_speakers(tmp_path):
    rows = []
    for speaker in range(10):
        for number in range(3):
            soundfile.write(tmp_path / f"{speaker}-{number}.wav", tone(0.3, 200.0 + speaker, seed=number), 16_000)
            rows.append({"id": f"{speaker}-{number}", "path": f"{speaker}-{number}.wav", "speaker": f"s{speaker}",
                         "phones": "AH", "split": "train"})  # fmt: skip
    with (tmp_path / "table.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    _run(tmp_path / "table.tsv", tmp_path / "out")
    root = tmp_path / "out" / "voxceleb1_apart"
    trials = [line.split() for line in (root / "voxceleb1_test_v2.txt").read_text().splitlines()]
    assert len(trials) == 2 * 2 * 3  # two speakers of three utterances
    for label, one, other in trials:
        assert one != other and (one.split("/")[0] == other.split("/")[0]) == (label == "1")
        assert (root / "test" / "wav" / one).is_file() and (root / "test" / "wav" / other).is_file()
    assert not (tmp_path / "out" / "librispeech_words").exists()  # the table has no words


def test_a_table_of_paths_speakers_and_texts_is_enough(table, tmp_path, capsys):
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    keep = [lines[0].index(name) for name in ("path", "speaker", "text")]
    bare = table.with_name("bare.tsv")
    bare.write_text("".join("\t".join(line[place] for place in keep) + "\n" for line in lines))
    split = _arrange(bare, tmp_path / "out")
    assert sorted(part for part, _ in split) == [1] * 15 + [2] * 5 + [3] * 5
    assert not (tmp_path / "out" / "lexicon.txt").exists() and "no column phones" in capsys.readouterr().out
    texts = (tmp_path / "out" / "librispeech").rglob("*.trans.txt")
    assert {line.split(" ", 1)[1] for path in texts for line in path.read_text().splitlines()} == {"AB"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("path\tphones\na.wav\tAH\n", "lacks speaker"), ("path\tspeaker\na.wav\ts\n", "lacks phones or text"),
        ("path\tspeaker\ttext\n", "has no lines"), ("path\tspeaker\ttext\nno.wav\ts\tA\n", "line 2 of"),
        (None, "No such file"),
    ],
)  # fmt: skip
def test_a_table_that_will_not_do_gets_one_line(tmp_path, content, told):
    if content is not None:
        (tmp_path / "mine.tsv").write_text(content)
    with pytest.raises(SystemExit) as ended:
        _run(tmp_path / "mine.tsv", tmp_path / "out")
    assert told in ended.value.code and len(ended.value.code.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_as_a_command(table, tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, table, tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"5 speakers, 25 utterances in {tmp_path}/out\n"), done.stderr
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "no.tsv", tmp_path / "none"], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "No such file" in done.stderr
