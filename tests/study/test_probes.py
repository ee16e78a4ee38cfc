"""The probes' corpora: who is in which part, and that test parts never change."""

import pytest
from study_speech import SIZES, make_tables

from speechft.data.shares import split_position
from speechft.errors import UsageError
from speechft.study.probes import Tables, arrange, paths


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    tables = make_tables(root / "data")
    return tables, [arrange(tables, SIZES, seed, root / f"seed-{seed}") for seed in (0, 1)]


def lines(folder, split, units="phones"):
    files = sorted((folder / units / split).rglob("*.trans.txt"))
    return {line for file in files for line in file.read_text().splitlines()}


def test_no_speaker_of_the_phone_probe_is_fine_tuned_on_or_in_two_parts(folders):
    _, (folder, _) = folders
    parts = [{path.name for path in (folder / "phones" / split).iterdir()}
             for split in ("train-clean-100", "dev-clean", "test-clean")]  # fmt: skip
    assert all(parts) and not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert all(split_position(speaker) >= 0.5 for part in parts for speaker in part)


def test_seeds_draw_training_parts_and_share_test_parts(folders):
    _, (one, other) = folders
    for units in ("phones", "characters"):
        assert lines(one, "test-clean", units) == lines(other, "test-clean", units) != set()
        assert lines(one, "train-clean-100", units) != lines(other, "train-clean-100", units)
    for probe in ("sid", "digits"):
        splits = [(folder / probe / "iden_split.txt").read_text().splitlines() for folder in (one, other)]
        tested = [{line for line in split if line.startswith("3 ")} for split in splits]
        trained = [{line for line in split if line.startswith("1 ")} for split in splits]
        assert tested[0] == tested[1] != set() and trained[0] != trained[1]
    assert (one / "asv" / "voxceleb1_test_v2.txt").read_text() == (other / "asv" / "voxceleb1_test_v2.txt").read_text()


def test_words_are_spelt_by_the_lexicon(folders):
    _, (folder, _) = folders
    lexicon = dict(line.split("\t") for line in (folder / "lexicon-characters.txt").read_text().splitlines())
    assert lexicon["TEA"] == "T E A"
    vocabulary = set((folder / "characters.txt").read_text().split())
    assert {unit for spelt in lexicon.values() for unit in spelt.split()} == vocabulary


def test_every_speaker_of_sid_is_in_all_parts_with_its_share(folders):
    _, (folder, _) = folders
    counts = {}
    for line in (folder / "sid" / "iden_split.txt").read_text().splitlines():
        part, name = line.split()
        counts.setdefault(name.split("/")[0], []).append(int(part))
        assert (folder / "sid" / "dev" / "wav" / name).is_file()
    assert counts and all(sorted(own) == [1, 2, 3, 3] for own in counts.values())


def test_trials_are_of_speakers_that_asv_does_not_train_on(folders):
    _, (folder, _) = folders
    trials = [line.split() for line in (folder / "asv" / "voxceleb1_test_v2.txt").read_text().splitlines()]
    assert {label for label, _, _ in trials} == {"0", "1"}
    for label, one, other in trials:
        assert one != other and (one.split("/")[0] == other.split("/")[0]) == (label == "1")
        assert (folder / "asv" / "test" / "wav" / one).is_file()


def test_a_probe_is_told_its_own_corpus(folders):
    _, (folder, _) = folders
    assert f"data.voxceleb1={folder / 'digits'}" in paths(folder, "digits")
    assert f"data.lexicon={folder}/lexicon-characters.txt" in paths(folder, "characters")


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(UsageError, match="fsdd"):
        Tables.under(tmp_path)
