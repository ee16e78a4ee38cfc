"""TSV, CSV and JSONL say the same; every other column is a label; transcripts as letters."""

import json

import pytest
from layouts import noise

from speechft.data.corpora import load_cuts
from speechft.data.text import letters
from speechft.errors import SpeechFTError

ROWS = [
    {"path": "one.wav", "speaker": "s1", "text": "Hello, world", "emotion": "sad", "gender": "f"},
    {"path": "two.wav", "speaker": "s2", "text": "Good bye", "emotion": "hap", "gender": "m"},
]


@pytest.fixture
def folder(tmp_path):
    for row in ROWS:
        noise(tmp_path / row["path"])
    names = list(ROWS[0])
    for suffix, mark in (("tsv", "\t"), ("csv", ",")):
        lines = [mark.join(names)] + [
            mark.join(f'"{row[name]}"' if mark == "," else row[name] for name in names) for row in ROWS
        ]
        (tmp_path / f"table.{suffix}").write_text("\n".join(lines) + "\n")
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_every_form_gives_the_same(folder, suffix):
    cuts, _ = load_cuts([{"kind": "tsv", "path": str(folder / f"table.{suffix}")}])
    assert list(cuts.ids) == ["one", "two"]  # after the path, where there is no id
    for cut, row in zip(cuts, ROWS, strict=True):
        one = cut.supervisions[0]
        assert (one.text, one.speaker, one.gender) == (row["text"], row["speaker"], row["gender"])
        assert one.custom == {"emotion": row["emotion"]}


def test_renamed_columns_and_lists(folder):
    rows = [{"file": "one.wav", "who": "s1", "phones": ["HH", "AH"], "n": 3, "nothing": None}]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    rename = {"file": "path", "who": "speaker"}
    (cut,) = load_cuts([{"kind": "tsv", "path": str(folder / "own.jsonl"), "text": None, "rename": rename}])[0]
    assert cut.supervisions[0].speaker == "s1" and cut.supervisions[0].custom == {"phones": "HH AH", "n": "3"}


def test_audio_elsewhere_and_damage(folder):
    (folder / "tables").mkdir()
    moved = (folder / "table.tsv").rename(folder / "tables" / "table.tsv")
    assert len(load_cuts([{"kind": "tsv", "path": str(moved), "audio": str(folder)}])[0]) == 2
    (folder / "bad.jsonl").write_text('{"path": "one.wav"}\n{"path": \n')
    with pytest.raises(SpeechFTError, match=r"bad.jsonl line 2 is no JSON"):
        load_cuts([{"kind": "tsv", "path": str(folder / "bad.jsonl")}])
    (folder / "bad.tsv").write_text("id\tfile\na\tone.wav\n")
    with pytest.raises(SpeechFTError, match=r"its columns: id, file; rename one: 'data.rename={file: path}'"):
        load_cuts([{"kind": "tsv", "path": str(folder / "bad.tsv")}])
    (folder / "bad.tsv").write_text("id,path\na,one.wav\n")
    with pytest.raises(SpeechFTError, match=r"its columns: id,path; its commas look like a CSV's: name it .csv"):
        load_cuts([{"kind": "tsv", "path": str(folder / "bad.tsv")}])
    with pytest.raises(SpeechFTError, match=r"table.tsv has no column words; its columns: path, speaker, text"):
        load_cuts([{"kind": "tsv", "path": str(folder / "tables" / "table.tsv"), "text": "words"}])
    with pytest.raises(SpeechFTError, match=r"nowhere.tsv is missing"):
        load_cuts([{"kind": "tsv", "path": str(folder / "nowhere.tsv")}])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "semi.csv",
            "path;text\na.wav;hello\n",
            "stand between semicolons: save it with tabs, or as a .csv with commas",
        ),
        ("bare.tsv", "a.wav\thello\nb.wav\tyou\n", "its first line should name the columns"),
        ("none.tsv", "path\ttext\n", "has no lines below its header"),
        (
            "split.tsv",
            "path\ttext\tsplit\na.wav\thello\ttrain\n",
            r"no line of .* has {split: trian}; in it split is train",
        ),
    ],
)
def test_tables_as_people_make_them(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    where = {"split": "trian"} if name == "split.tsv" else None
    with pytest.raises(SpeechFTError, match=told):
        load_cuts([{"kind": "tsv", "path": str(tmp_path / name), "where": where}])


def test_a_missing_table_is_told_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpeechFTError, match=f"corpus table {tmp_path}/mine.tsv is missing"):
        load_cuts([{"kind": "tsv", "path": "mine.tsv"}])


@pytest.mark.parametrize(("text", "wanted"), [
    ("it 's a well-known fact , 1 2 3", "IT'S A WELL KNOWN FACT"), ("{NOISE} so <sil> um [laughter] yes", "SO UM YES"),
    ("Dŵr, “hi’n” naïf", "DŴR HI'N NAÏF"), ("हिन्दी", "हिन्दी"), ("...", ""),
])  # fmt: skip
def test_letters(text, wanted):
    assert letters(text) == wanted
