"""Every layout as its release has it: counts, labels, splits, and what is said when it is not there."""

import numpy as np
import pytest
from layouts import (
    aishell3,
    common_voice,
    crema_d,
    fluent_commands,
    iemocap,
    noise,
    snips,
    speech_commands,
    tedlium3,
    voxceleb1,
)  # fmt: skip

from speechft.data.audio import load_audio
from speechft.data.corpora import load_cuts
from speechft.data.loader import read_cut
from speechft.errors import SpeechFTError, UsageError


def _cuts(kind, root, **options):
    return load_cuts([{"kind": kind, "root": str(root), **options}])[0]


def _custom(cut, name):
    return cut.supervisions[0].custom[name]


def test_tedlium3_segments_of_talks(tmp_path):
    root = tedlium3(tmp_path)
    cuts = _cuts("tedlium3", root, split="train", normalize="letters")
    assert list(cuts.ids) == ["Abe_2009-0", "Abe_2009-1", "Bea_2010-0", "Bea_2010-1", "Bea_2010-3"]
    assert cuts["Bea_2010-0"].supervisions[0].text == "IT'S A WELL KNOWN START"
    assert cuts["Abe_2009-1"].supervisions[0].text == "EIGHT SECONDS MORE"
    assert cuts["Bea_2010-0"].supervisions[0].speaker == "Bea_2010"
    assert len(_cuts("tedlium3", root, split="train", unknown=True)) == 6
    (dev,) = _cuts("tedlium3", root, split="dev")
    assert (dev.id, dev.duration, dev.supervisions[0].gender) == ("Dev_2008-1", 3.0, "f")


def test_sphere_is_read_in_parts(tmp_path):
    """The samples between the segment's times, from the bytes of the file."""
    cuts = _cuts("tedlium3", tedlium3(tmp_path), split="train")
    data = (tmp_path / "legacy/train/sph/Bea_2010.sph").read_bytes()[1024:]
    wanted = np.frombuffer(data, "<i2")[8000:48_000] / 32768
    assert np.array_equal(read_cut(cuts["Bea_2010-0"]).numpy(), wanted.astype(np.float32))
    assert np.array_equal(load_audio(tmp_path / "legacy/train/sph/Bea_2010.sph", 0.5, 2.5).numpy(), wanted.astype("f4"))


def test_only_the_segment_is_read(tmp_path, monkeypatch):
    import soundfile

    cuts = _cuts("tedlium3", tedlium3(tmp_path), split="train")
    lengths, read = [], soundfile.SoundFile.read

    def counting(self, *args, **kwargs):
        samples = read(self, *args, **kwargs)
        lengths.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    read_cut(cuts["Bea_2010-3"])
    assert lengths == [9 * 16_000]


def test_the_papers_hours_rule(tmp_path):
    """In order, 1 to 60 s, without <unk>, up to and with the utterance that passes the amount; the same every time."""
    root = tedlium3(tmp_path)
    options = {"split": "train", "min_seconds": 1.0, "max_seconds": 60.0}
    for seconds, wanted in ((9, 1), (10.5, 2), (17, 2), (18.5, 3), (1000, 4)):
        cuts = _cuts("tedlium3", root, hours=seconds / 3600, **options)
        assert list(cuts.ids) == ["Abe_2009-0", "Abe_2009-1", "Bea_2010-0", "Bea_2010-3"][:wanted]


def test_voxceleb1_by_its_list(tmp_path):
    root = voxceleb1(tmp_path)
    parts = {split: _cuts("voxceleb1", root, split=split) for split in ("train", "dev", "test")}
    assert {split: len(cuts) for split, cuts in parts.items()} == {"train": 6, "dev": 3, "test": 3}
    speakers = [{cut.supervisions[0].speaker for cut in cuts} for cuts in parts.values()]
    assert speakers == [{"id10001", "id10002", "id10270"}] * 3
    cut = parts["train"]["id10270-vid0-00001"]
    assert cut.supervisions[0].gender == "f" and _custom(cut, "nationality") == "India"
    (root / "dev" / "wav" / "id10001" / "vid0" / "00001.wav").unlink()
    with pytest.raises(SpeechFTError, match=r"audio file .*/id10001/vid0/00001.wav is missing"):
        _cuts("voxceleb1", root, split="train")
    with pytest.raises(UsageError, match="known: train, dev, test"):
        _cuts("voxceleb1", root, split="valid")
    (root / "iden_split.txt").unlink()
    with pytest.raises(SpeechFTError, match=r"iden_split.txt is missing; get it .*robots.ox.ac.uk"):
        _cuts("voxceleb1", root, split="train")


def test_speech_commands_as_superb_takes_it(tmp_path):
    root, test = speech_commands(tmp_path / "sc", tmp_path / "test")
    train, dev = (_cuts("speech_commands", root, split=split) for split in ("train", "dev"))

    def count(cuts):
        words = [_custom(cut, "keyword") for cut in cuts]
        return {word: words.count(word) for word in sorted(set(words))}

    # three speakers of four (`no` loses one to the test list), nine seconds of ten of each noise
    assert count(train) == {"_silence_": 18, "_unknown_": 3, "no": 3, "yes": 3}
    assert count(dev) == {"_silence_": 2, "_unknown_": 1, "yes": 1}
    assert _custom(train["bed-aaaaaaaa_nohash_0"], "word") == "bed"
    assert train["bed-aaaaaaaa_nohash_0"].supervisions[0].speaker == "aaaaaaaa"
    spans = {cut.id: (cut.recording.sources[0].source, cut.start, cut.end) for part in (train, dev) for cut in part
             if _custom(cut, "keyword") == "_silence_"}  # fmt: skip
    assert len(set(spans.values())) == 20 and all(end - start == 1.0 for _, start, end in spans.values())
    assert sum(_custom(cut, "keyword") == "_unknown_" for cut in _cuts("speech_commands", root, unknown=0.0)) == 0
    tested = load_cuts([{"kind": "speech_commands", "test_root": str(test), "split": "test"}])[0]
    assert count(tested) == {"_silence_": 1, "_unknown_": 1, "no": 1, "yes": 1}
    assert tested["unknown-bed_eeeeeeee_nohash_1"].supervisions[0].speaker == "eeeeeeee"


def test_fluent_commands(tmp_path):
    root = fluent_commands(tmp_path)
    assert [len(_cuts("fluent_commands", root, split=split)) for split in ("train", "dev", "test")] == [2, 1, 1]
    cut = _cuts("fluent_commands", root, split="train")["a-1"]
    assert [_custom(cut, name) for name in ("action", "object", "location")] == ["activate", "lights", "none"]
    one = cut.supervisions[0]
    assert (one.text, one.speaker, one.gender) == ("Lights, on", "a", "f")
    (root / "data" / "valid_data.csv").write_text(",path,speakerId\n0,x.wav,a\n")
    with pytest.raises(SpeechFTError, match="no column action, location, object, transcription"):
        _cuts("fluent_commands", root, split="dev")


def test_snips(tmp_path):
    root = snips(tmp_path)
    cuts = _cuts("snips", root, split="train", speakers=["Ivy", "Joey"])
    assert {cut.supervisions[0].speaker for cut in cuts} == {"Ivy", "Joey"} and len(cuts) == 2
    cut = cuts["Ivy-snips-train-0"]
    assert cut.supervisions[0].text.split() == ["PLAY", "BAD", "BAND"]
    assert _custom(cut, "slots").split() == ["O", "album", "album"] and _custom(cut, "intent") == "PlayMusic"


def test_snips_needs_a_slot_for_each_word(tmp_path):
    root = snips(tmp_path)
    listing = root / "all.iob.snips.txt"
    listing.write_text(listing.read_text().replace("O O album album", "O album album"))
    with pytest.raises(SpeechFTError, match="has 3 words and 2 slots"):
        _cuts("snips", root, split="valid")


def test_iemocap_is_safe_for_every_fold(tmp_path):
    root = iemocap(tmp_path)
    for fold in range(1, 6):
        parts = {split: _cuts("iemocap", root, split=split, fold=fold) for split in ("train", "dev", "test")}
        assert {split: len(cuts) for split, cuts in parts.items()} == {"train": 12, "dev": 4, "test": 4}
        sessions = {split: {_custom(cut, "session") for cut in cuts} for split, cuts in parts.items()}
        assert sessions["test"] == {str(fold)} and sessions["dev"] == {str(fold % 5 + 1)}
        speakers = [{cut.supervisions[0].speaker for cut in cuts} for cuts in parts.values()]
        assert len(set.union(*speakers)) == sum(map(len, speakers)) == 10
    cuts = _cuts("iemocap", root, split="train", fold=1, dev_session=5)
    assert {_custom(cut, "session") for cut in cuts} == {"2", "3", "4"}
    assert {_custom(cut, "emotion") for cut in cuts} == {"neu", "hap", "ang", "sad"}
    cut = cuts["Ses02F_impro01_M001"]
    assert (cut.supervisions[0].speaker, cut.supervisions[0].text) == ("Ses02M", "Excuse me.")
    with pytest.raises(UsageError, match="two different sessions"):
        _cuts("iemocap", root, split="train", fold=2, dev_session=2)


def test_crema_d_shares_no_actor(tmp_path):
    root = crema_d(tmp_path)
    parts = [_cuts("crema_d", root, speaker_fraction=part) for part in ([0.0, 0.8], [0.8, 1.0])]
    actors = [{cut.supervisions[0].speaker for cut in cuts} for cuts in parts]
    assert not actors[0] & actors[1] and len(actors[0] | actors[1]) == 20
    cut = next(iter(parts[0]))
    assert _custom(cut, "emotion") in ("ang", "sad") and cut.supervisions[0].text == "Don't forget a jacket"
    assert all(cut.supervisions[0].gender == ("f" if int(cut.supervisions[0].speaker) % 2 else "m") for cut in parts[0])


def test_aishell3(tmp_path):
    root = aishell3(tmp_path)
    cut = _cuts("aishell3", root, split="train")["SSB00050001"]
    one = cut.supervisions[0]
    assert (one.text, one.speaker, one.gender, one.language) == ("广州", "SSB0005", "f", "zh")
    assert _custom(cut, "pinyin") == "guang3 zhou1"
    assert cut.sampling_rate == 16_000 and read_cut(cut).numel() == pytest.approx(4800, abs=1)
    assert len(_cuts("aishell3", root, split=["train", "test"])) == 3


def test_common_voice(tmp_path):
    root = common_voice(tmp_path)
    cuts = _cuts("common_voice", root, language="cy", split="train", normalize="letters")
    one = cuts["common_voice_cy_a"].supervisions[0]
    assert (one.text, one.speaker, one.gender, one.language) == ("MAE HI'N BRAF HEDDIW", "a", "f", "cy")
    assert one.custom == {"age": "twenties"}
    assert abs(read_cut(cuts["common_voice_cy_a"]).numel() - 4800) < 1500  # MP3 pads


LAYOUTS = {
    "aishell3": {"split": "train"}, "common_voice": {"language": "en", "split": "train"}, "crema_d": {},
    "fluent_commands": {"split": "train"}, "iemocap": {"split": "train"}, "librispeech": {"split": "dev-clean"},
    "snips": {"split": "train"}, "speech_commands": {}, "tedlium3": {"split": "train"}, "voxceleb1": {"split": "train"},
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_missing_corpus_says_where_to_get_it(kind, tmp_path):
    with pytest.raises(SpeechFTError, match=rf"is missing: there is no folder {tmp_path}/nowhere; (get|ask|unpack)"):
        _cuts(kind, tmp_path / "nowhere", **LAYOUTS[kind])
    with pytest.raises(SpeechFTError, match=r"has no |is missing|another layout"):
        _cuts(kind, tmp_path, **LAYOUTS[kind])


def test_a_wrong_layout_says_what_was_expected(tmp_path):
    noise(tmp_path / "dev-clean" / "21" / "a.wav")
    with pytest.raises(SpeechFTError, match=r"expected SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt"):
        _cuts("librispeech", tmp_path, split="dev-clean")
