"""Audio of any place as a stream of pieces."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from small import tone

from speechft.analysis import audio
from speechft.analysis.audio import audio_set
from speechft.errors import SpeechFTError, UsageError


@pytest.fixture
def folder(tmp_path):
    for name, seconds, pitch in (("b/one.wav", 0.5, 200), ("a.flac", 1.25, 300), ("b/c/two.WAV", 0.75, 400)):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, pitch), 16_000)
    (tmp_path / "corpus" / "notes.txt").write_text("no audio")
    return tmp_path / "corpus"


def test_a_folder_longest_first(folder):
    found = audio_set(folder)
    assert [piece.path.name for piece in found.pieces] == ["a.flac", "two.WAV", "one.wav"]
    assert found.utterances == 3 and found.seconds == pytest.approx(2.5)
    waves = list(found.waves())
    assert [len(wave) for wave in waves] == [20_000, 12_000, 8_000] and waves[0].dtype == torch.float32
    assert np.allclose(waves[2].numpy(), soundfile.read(folder / "b" / "one.wav")[0], atol=1e-4)


def test_the_hash_is_of_what_is_heard(folder, tmp_path):
    before = audio_set(folder).sha256
    (folder / "a.flac").rename(folder / "z.flac")
    assert audio_set(folder).sha256 == before
    assert audio_set(folder, utterances=2).sha256 != before
    soundfile.write(folder / "b" / "one.wav", tone(0.5, 201), 16_000)
    assert audio_set(folder).sha256 != before


def test_long_recordings_are_cut_into_equal_pieces(folder, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 0.5)
    found = audio_set(folder)
    assert found.utterances == 3 and len(found.pieces) == 3 + 2 + 1
    lengths = [len(wave) for wave in found.waves()]
    assert sum(lengths) == 40_000 and max(lengths) == 8_000
    of_a = sorted((piece for piece in found.pieces if piece.path.name == "a.flac"), key=lambda piece: piece.start)
    assert [piece.seconds for piece in of_a] == pytest.approx([1.25 / 3] * 3, abs=1e-4)
    whole = soundfile.read(folder / "a.flac")[0]
    put_together = torch.cat([audio.load_audio(piece.path, piece.start, piece.seconds) for piece in of_a]).numpy()
    assert np.allclose(put_together, whole, atol=1e-4)


def test_a_table_with_parts_of_files(folder, tmp_path):
    table = folder / "parts.tsv"
    table.write_text("id\tpath\tstart\tend\nx\ta.flac\t0.25\t0.75\ny\tb/one.wav\t\t\n")
    found = audio_set(table)
    assert [(piece.start, piece.seconds) for piece in found.pieces] == [(0.25, 0.5), (0.0, 0.5)]
    table.write_text("id\tpath\tstart\tend\nx\ta.flac\t2\t3\n")
    with pytest.raises(SpeechFTError, match=r"a.flac has no audio from 2 to 1.25 s; mend the table"):
        audio_set(table)


def test_some_utterances_are_spread_over_the_list(tmp_path):
    for number in range(10):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.1, 100 + number), 16_000)
    names = sorted(piece.path.name for piece in audio_set(tmp_path, utterances=3).pieces)
    assert names == ["0.wav", "3.wav", "6.wav"]
    assert audio_set(tmp_path, utterances=99).utterances == 10


def test_what_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere does not exist; give a folder, a table"):
        audio_set(tmp_path / "nowhere")
    with pytest.raises(SpeechFTError, match="holds no audio"):
        audio_set(tmp_path)
    with pytest.raises(UsageError, match="no test set of size 'huge'; choose one of tiny, smoke, demo"):
        audio_set("synthetic:huge")
    with pytest.raises(UsageError, match="0 utterances"):
        audio_set(tmp_path, utterances=0)
    (tmp_path / "bad.wav").write_text("no audio at all")
    with pytest.raises(SpeechFTError, match=r"bad.wav cannot be read"):
        audio_set(tmp_path)


def test_what_cannot_be_heard_is_left_out_and_said(folder, capsys):
    whole = audio_set(folder)
    table = folder / "some.csv"
    table.write_text("path,start\na.flac,0\nb/one.wav,0\nb/c/two.WAV,0\nnowhere.wav,0\na.flac,9\n")
    found = audio_set(table)
    assert found.pieces == whole.pieces and found.sha256 == whole.sha256 and found.utterances == 3
    assert [reason.rpartition("/")[2] for reason in found.left_out] == ["a.flac has no audio from 9 to 1.25 s",
                                                                         "nowhere.wav is missing"]  # fmt: skip
    assert "2 of 5 utterances of" in capsys.readouterr().err and not whole.left_out
