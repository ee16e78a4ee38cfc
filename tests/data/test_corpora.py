"""Corpora read by the definition of their layouts; bad items are named."""

import shutil

import numpy as np
import pytest
import soundfile

from speechft.data.audio import audio_info, load_audio, remembered_info
from speechft.data.check import load_corpus
from speechft.data.corpora import load_cuts
from speechft.data.lexicon import missing_words, pronounce, read_lexicon
from speechft.data.loader import read_cut
from speechft.data.shares import split_position
from speechft.errors import SpeechFTError, UsageError


def test_librispeech_cuts_carry_text_speaker_and_audio(librispeech):
    cuts, bad = load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean"}])
    assert len(cuts) == 8 and not bad
    lines = dict(
        line.split(" ", 1) for line in (librispeech / "dev-clean/21/1/21-1.trans.txt").read_text().splitlines()
    )
    for cut in cuts:
        assert cut.supervisions[0].text == lines[cut.id]
        assert cut.supervisions[0].speaker == "21"
        samples, rate = soundfile.read(librispeech / f"dev-clean/21/1/{cut.id}.flac", dtype="float32")
        assert rate == 16_000
        assert np.array_equal(read_cut(cut).numpy(), samples)


@pytest.fixture
def table(tmp_path):
    time = np.arange(16_000) / 8000
    soundfile.write(tmp_path / "a.wav", np.stack([np.sin(440 * 2 * np.pi * time), np.zeros_like(time)], 1) * 0.5, 8000)
    soundfile.write(tmp_path / "b.wav", np.random.default_rng(0).standard_normal(8000) * 0.1, 16_000)
    rows = "id\tpath\tspeaker\ttext\tsplit\na\ta.wav\ts1\tHELLO\ttrain\nb\tb.wav\ts2\tWORLD\tdev\n"
    (tmp_path / "utterances.tsv").write_text(rows)
    return tmp_path / "utterances.tsv"


def test_any_rate_and_channels_become_16_khz_mono(table):
    cuts, _ = load_cuts([{"kind": "tsv", "path": str(table)}])
    first = read_cut(cuts["a"])
    assert first.dim() == 1 and abs(first.numel() - 32_000) <= 1
    assert float(first[8000:24_000].abs().max()) == pytest.approx(0.25, rel=0.02)  # the mean of a tone and silence
    spectrum = np.abs(np.fft.rfft(first.numpy()))
    assert abs(np.argmax(spectrum) / 2.0 - 440) < 2  # two seconds: half a hertz a bin
    assert abs(load_audio(table.parent / "a.wav").numel() - 32_000) <= 1


def test_parts_of_long_files(table):
    lines, added = table.read_text().splitlines(), (["start", "end"], ["0.5", "1.25"], ["", ""])
    rows = ["\t".join([*line.split("\t"), *extra]) for line, extra in zip(lines, added, strict=True)]
    table.write_text("\n".join(rows) + "\n")
    cuts, _ = load_cuts([{"kind": "tsv", "path": str(table)}])
    part, whole = read_cut(cuts["a"]), load_audio(table.parent / "a.wav")
    assert part.numel() == 12_000 and cuts["b"].duration == 0.5
    assert np.abs(part[800:-800].numpy() - whole[8800:19_200].numpy()).max() < 1e-2  # but for the resampler's edges
    table.write_text("\n".join(rows).replace("1.25", "0.25") + "\n")
    with pytest.raises(SpeechFTError, match=r"utterance a .* is not inside its 2.00 s file"):
        load_cuts([{"kind": "tsv", "path": str(table)}])


def test_where_and_labels(table):
    cuts, _ = load_cuts([{"kind": "tsv", "path": str(table), "where": {"split": "dev"}}])
    assert [cut.id for cut in cuts] == ["b"]
    assert cuts["b"].supervisions[0].custom["split"] == "dev"
    with pytest.raises(SpeechFTError, match="has no column fold; its columns: id, path"):
        load_cuts([{"kind": "tsv", "path": str(table), "where": {"fold": 1}}])


def test_speaker_fractions_split_without_overlap():
    names = [f"speaker{index}" for index in range(1000)]
    places = [split_position(name) for name in names]
    assert all(0 <= place < 1 for place in places)
    assert 430 < sum(place < 0.5 for place in places) < 570


def test_shares_of_the_utterances_have_the_same_speakers(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    rows = [f"{speaker}-{number}\ta.wav\t{speaker}" for speaker in "xyz" for number in range(60)]
    (tmp_path / "t.tsv").write_text("id\tpath\tspeaker\n" + "\n".join(rows) + "\n")
    parts = []
    for share in ([0.0, 0.8], [0.8, 1.0]):
        source = {"kind": "tsv", "path": str(tmp_path / "t.tsv"), "speaker_fraction": share, "split_by": "utterances"}
        parts.append(load_cuts([source])[0])
    ids = [{cut.id for cut in part} for part in parts]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 180
    assert 18 < len(ids[1]) < 54  # a fifth of 180, within three deviations
    assert [{cut.supervisions[0].speaker for cut in part} for part in parts] == [set("xyz")] * 2
    with pytest.raises(UsageError, match="split_by 'days'"):
        load_cuts([{"kind": "tsv", "path": str(tmp_path / "t.tsv"), "split_by": "days"}])


def test_of_few_speakers_one_is_held_out_at_least(tmp_path):
    """Ten speakers of these names all have places below 0.9, which a third of all sets of ten has."""
    places = {f"spk{number}": split_position(f"spk{number}") for number in range(10)}
    assert max(places.values()) < 0.9
    for number in range(10):
        soundfile.write(tmp_path / f"u{number}.wav", np.zeros(8000), 16_000)

    def speakers(share, count=10):
        rows = "".join(f"u{number}\tspk{number}\tu{number}.wav\n" for number in range(count))
        (tmp_path / "t.tsv").write_text("id\tspeaker\tpath\n" + rows)
        source = {"kind": "tsv", "path": str(tmp_path / "t.tsv"), "text": None, "speaker_fraction": share}
        return {cut.supervisions[0].speaker for cut in load_cuts([source])[0]}

    last, first = max(places, key=places.get), min(places, key=places.get)
    assert speakers([0.9, 1.0]) == {last} and speakers([0.0, 0.9]) == places.keys() - {last}
    tiny = places[first] / 2
    assert speakers([0.0, tiny]) == {first} and speakers([tiny, 1.0]) == places.keys() - {first}
    middle = 0.5  # with speakers on both sides a bound stays where it is
    assert speakers([middle, 1.0]) == {name for name, place in places.items() if place >= middle}
    assert speakers([0.0, middle]) == {name for name, place in places.items() if place < middle}
    assert speakers([0.0, 1.0]) == places.keys() and len(speakers([0.9, 1.0], 2)) == 1
    with pytest.raises(SpeechFTError, match=r"of 10 speakers none falls into the share \[0.9, 0.95\]"):
        speakers([0.9, 0.95])
    with pytest.raises(SpeechFTError, match=r"the only one of the speakers does not fall into the share \[0.9, 1\]"):
        speakers([0.9, 1.0], 1)


def test_few_speakers_stay_apart_where_dev_has_others(tmp_path):
    """spk2 is the last of dev's three, but not of the ten in train."""
    for number in range(10):
        soundfile.write(tmp_path / f"u{number}.wav", np.full(8000, 0.01 * number), 16_000)
        soundfile.write(tmp_path / f"d{number}.wav", np.full(9000, 0.01 * number), 16_000)
    for name, numbers in (("u", range(10)), ("d", (6, 0, 2))):
        rows = "".join(f"{name}{number}\tspk{number}\t{name}{number}.wav\n" for number in numbers)
        (tmp_path / f"{name}.tsv").write_text("id\tspeaker\tpath\n" + rows)
    sources = {
        split: [{"kind": "tsv", "path": str(tmp_path / f"{name}.tsv"), "text": None, "speaker_fraction": share}]
        for split, name, share in (("train", "u", [0.0, 0.9]), ("dev", "d", [0.9, 1.0]))
    }
    corpus = load_corpus(sources, loud=False)
    heard = [{cut.supervisions[0].speaker for cut in part} for part in (corpus.train, corpus.dev)]
    assert heard == [{f"spk{number}" for number in (0, 1, 3, 4, 6, 7, 8, 9)}, {"spk2"}]  # spk5 is train's own last


def test_broken_audio_is_named_or_skipped(table):
    (table.parent / "b.wav").write_text("this is no audio")
    with pytest.raises(SpeechFTError, match=r"audio file .*b\.wav cannot be read"):
        load_cuts([{"kind": "tsv", "path": str(table)}])
    cuts, bad = load_cuts([{"kind": "tsv", "path": str(table)}], skip_bad=True)
    assert len(cuts) == 1 and bad[0][0] == "b"


def test_missing_audio_is_named_and_an_empty_transcript_left_to_the_task(table):
    text = table.read_text()
    table.write_text(text.replace("WORLD", " "))
    cuts, bad = load_cuts([{"kind": "tsv", "path": str(table)}])
    assert [cut.id for cut in cuts] == ["a", "b"] and not bad
    table.write_text(text.replace("b.wav", "nowhere.wav"))
    with pytest.raises(SpeechFTError, match=r"audio file .*nowhere\.wav is missing"):
        load_cuts([{"kind": "tsv", "path": str(table)}])


def test_audio_that_is_empty_or_not_finite(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(SpeechFTError, match="holds no audio"):
        load_audio(tmp_path / "empty.wav")
    with pytest.raises(SpeechFTError, match="not finite"):
        load_audio(tmp_path / "nan.wav")


def test_missing_folders_and_kinds(librispeech, tmp_path):
    with pytest.raises(SpeechFTError, match=r"LibriSpeech in .* has no train-clean-100; get it from openslr.org/12"):
        load_cuts([{"kind": "librispeech", "root": str(tmp_path), "split": "train-clean-100"}])
    with pytest.raises(UsageError, match=r"unknown corpus kind 'librispech'; known: aishell3, .* librispeech"):
        load_cuts([{"kind": "librispech", "root": str(librispeech)}])
    with pytest.raises(UsageError, match="corpus kind tsv"):
        load_cuts([{"kind": "tsv", "file": "x"}])


def test_the_same_id_twice_is_refused(librispeech):
    source = {"kind": "librispeech", "root": str(librispeech), "split": "dev-clean"}
    with pytest.raises(SpeechFTError, match="is in the corpus twice"):
        load_cuts([source, source])


def test_a_truncated_file_is_named_when_it_is_read(librispeech, tmp_path):
    shutil.copytree(librispeech / "dev-clean", tmp_path / "dev-clean")
    broken = next((tmp_path / "dev-clean").rglob("*.flac"))
    broken.write_bytes(broken.read_bytes()[:2000])
    cuts, _ = load_cuts([{"kind": "librispeech", "root": str(tmp_path), "split": "dev-clean"}])
    with pytest.raises(SpeechFTError, match=broken.name):
        read_cut(cuts[broken.stem])


@pytest.mark.parametrize("name", ["cut.wav", "cut.aiff", "cut.au"])
def test_a_file_shorter_than_its_header_says(name, tmp_path):
    """libsndfile reads on as far as it goes; every reader of ours stops."""
    path = tmp_path / name
    soundfile.write(path, np.zeros(16_000), 16_000)
    assert load_audio(path).numel() == audio_info(path).samples == 16_000
    path.write_bytes(path.read_bytes()[:20_000])
    for read in (load_audio, audio_info, remembered_info):
        with pytest.raises(SpeechFTError, match=rf"{name} is cut off: its header says 320\d\d bytes .* it has 199"):
            read(path)


def test_a_file_from_a_pipe_is_whole(tmp_path):
    """Programs that write into a pipe cannot know the length: their header says as much as there may be."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"):
        content[place : place + 4] = size
        path.write_bytes(content)
        assert load_audio(path).numel() == 16_000


def test_lexicon(tmp_path):
    (tmp_path / "lexicon.txt").write_text("hello  HH AH0 L OW1\nHELLO HH EH0 L OW1\nA\tAH0\n\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt")
    assert pronounce("a Hello", lexicon) == ["AH0", "HH", "AH0", "L", "OW1"]
    assert missing_words(["A WORLD", "HELLO YOU"], lexicon) == ["WORLD", "YOU"]
    (tmp_path / "lexicon.txt").write_text("HELLO\n")
    with pytest.raises(SpeechFTError, match=r"line 1: HELLO has no phones"):
        read_lexicon(tmp_path / "lexicon.txt")


def test_speeds_make_voices_of_their_own(table):
    """A tone of 440 Hz over 2 s, faster by a tenth: 484 Hz over 1.82 s."""
    cuts, _ = load_cuts([{"kind": "tsv", "path": str(table), "speeds": [1.0, 1.1]}])
    assert sorted(cuts.ids) == ["a", "a_sp1.1", "b", "b_sp1.1"]
    wave = read_cut(cuts["a_sp1.1"])
    assert wave.numel() == cuts["a_sp1.1"].num_samples and abs(wave.numel() - 32_000 / 1.1) <= 1
    spectrum = np.abs(np.fft.rfft(wave.numpy()))
    assert abs(np.argmax(spectrum) * 16_000 / wave.numel() - 484) < 2
    assert cuts["a_sp1.1"].supervisions[0].text == "HELLO"
    with pytest.raises(UsageError, match="speeds"):
        load_cuts([{"kind": "tsv", "path": str(table), "speeds": [0.0]}])
