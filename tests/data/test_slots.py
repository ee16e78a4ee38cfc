"""Slots in a line of characters, and their metrics, against s3prl's own encoder and metrics."""

import random

import pytest

from speechft.data.slots import characters, slot_type_f1, slot_units, slot_value_cer, slot_values, written
from speechft.errors import SpeechFTError
from speechft.superb import compat

SENTENCES = [
    ("PLAY BAD BAND", "O album album"), ("PLAY CAB", "O artist"), ("ADD BAD BAND TO CAB", "O album album O artist"),
    ("CAB BAD", "artist album"), ("DON'T PLAY", "O O"), ("ADD CAB & PLAY", "O artist O O"),
    ("BAD , BAND", "album O album"), ("CAB", "artist"),
]  # fmt: skip


def _units(words, slots):
    return slot_units(words.split(), slots.split())


@pytest.fixture(scope="module")
def s3prl_metric():
    compat.install()
    from s3prl.downstream.ctc import metric

    return metric


@pytest.mark.parametrize(("words", "slots"), SENTENCES, ids=[words for words, _ in SENTENCES])
def test_sentences_are_written_as_s3prl_writes_them(words, slots, s3prl_metric):
    from s3prl.downstream.ctc.text import CharacterTextSlotEncoder

    names = ["B-album", "E-album", "B-artist", "E-artist"]
    encoder = CharacterTextSlotEncoder(characters(), names)
    codes = encoder.encode(f"BOS {words} EOS\tO {slots} PlayMusic")
    assert written(_units(words, slots)) == encoder.decode(codes)


def test_a_sentence_by_hand():
    assert _units("PLAY BAD BAND", "O album album") == [*"PLAY", " ", "B-album", *"BAD BAND", "E-album"]
    assert written(_units("PLAY BAD BAND !", "O album album O")) == "PLAY B-album BAD BAND E-album"
    assert slot_values("PLAY B-album BAD B-artist BAND E-artist E-album") == {"album": ["BAD BAND"]}
    with pytest.raises(SpeechFTError, match="2 words with 1 slots: 'PLAY BAD'; give each word its slot, or O"):
        _units("PLAY BAD", "O")


def test_metrics_are_s3prls_on_damaged_lines(s3prl_metric):
    """Units dropped, doubled and swapped at random, as a recogniser would."""
    generator = random.Random(0)
    pairs = []
    for _ in range(200):
        said = _units(*generator.choice(SENTENCES))
        heard = [unit for unit in said if generator.random() > 0.15]
        if generator.random() < 0.3:
            heard += _units(*generator.choice(SENTENCES))
        if heard and generator.random() < 0.3:
            heard[generator.randrange(len(heard))] = generator.choice(["B-album", "E-artist", "X", " "])
        pairs.append((written(said), written(heard)))
    said, heard = zip(*pairs, strict=True)
    assert slot_type_f1(pairs) == pytest.approx(s3prl_metric.slot_type_f1(heard, said))
    assert slot_value_cer(pairs) == pytest.approx(s3prl_metric.slot_value_cer(heard, said))
    assert 0.3 < slot_type_f1(pairs) < 0.95 and 0.05 < slot_value_cer(pairs) < 0.9


def test_metrics_by_hand():
    right = "PLAY B-album BAD BAND E-album B-artist CAB E-artist"
    assert slot_type_f1([(right, right)]) == 1 and slot_value_cer([(right, right)]) == 0
    heard = "PLAY B-album BAD HAND E-album"
    assert slot_type_f1([(right, heard)]) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert slot_value_cer([(right, heard)]) == pytest.approx((1 + 3) / (8 + 3))
    assert slot_type_f1([("PLAY", "PLAY"), ("PLAY", heard)]) == 0.5
    assert slot_value_cer([("PLAY", heard)]) == 0
