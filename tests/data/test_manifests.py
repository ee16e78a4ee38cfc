"""lhotse's own manifests, written by lhotse, give a cut for each supervision."""

from dataclasses import replace

import pytest
from layouts import noise

from speechft.data.corpora import load_cuts
from speechft.data.loader import read_cut
from speechft.errors import SpeechFTError, UsageError


@pytest.fixture
def manifests(tmp_path):
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    mono = Recording.from_file(noise(tmp_path / "long.flac", seconds=4.0, rate=8000), recording_id="long")
    stereo = Recording.from_file(
        noise(tmp_path / "pair.wav", seconds=1.0, rate=44_100, channels=2), recording_id="pair"
    )
    recordings = RecordingSet.from_recordings([mono, stereo])
    supervisions = SupervisionSet.from_segments([
        SupervisionSegment("a", "long", 0.5, 1.0, text="ONE", speaker="s1", custom={"emotion": "sad"}),
        SupervisionSegment("b", "long", 1.2, 2.0, text="TWO", speaker="s2"),  # overlaps
        SupervisionSegment("c", "pair", 0.0, 1.0, channel=[0, 1], text="THREE", speaker="s1", language="en"),
    ])  # fmt: skip
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    supervisions.to_file(tmp_path / "supervisions.jsonl.gz")
    CutSet.from_manifests(recordings, supervisions).to_file(tmp_path / "cuts.jsonl.gz")
    return tmp_path


def _load(folder, *names, **options):
    return load_cuts([{"kind": "lhotse", **{name: str(folder / f"{name}.jsonl.gz") for name in names}, **options}])[0]


@pytest.mark.parametrize("names", [("recordings", "supervisions"), ("cuts",)], ids=str)
def test_a_cut_for_each_supervision(manifests, names):
    cuts = _load(manifests, *names)
    assert {cut.id: cut.supervisions[0].text for cut in cuts} == {"a": "ONE", "b": "TWO", "c": "THREE"}
    assert all(len(cut.supervisions) == 1 and cut.sampling_rate == 16_000 for cut in cuts)
    assert {cut.id: cut.duration for cut in cuts} == {"a": 1.0, "b": 2.0, "c": 1.0}
    assert {cut.id: read_cut(cut).numel() for cut in cuts} == {"a": 16_000, "b": 32_000, "c": 16_000}
    assert cuts["a"].supervisions[0].custom == {"emotion": "sad"} and cuts["c"].supervisions[0].language == "en"


def test_recordings_alone_are_speech_without_labels(manifests):
    cuts = _load(manifests, "recordings", prefix="x-")
    assert list(cuts.ids) == ["x-long", "x-pair"]
    assert all(cut.supervisions[0].text is None for cut in cuts)
    assert read_cut(cuts["x-pair"]).dim() == 1


def test_relative_paths_and_what_goes_wrong(manifests):
    from lhotse import RecordingSet

    def bare(recording):
        (source,) = recording.sources
        return replace(recording, sources=[replace(source, source=source.source.rpartition("/")[2])])

    moved = RecordingSet.from_file(manifests / "recordings.jsonl.gz").map(bare)
    moved.to_file(manifests / "moved.jsonl.gz")
    source = {"kind": "lhotse", "recordings": str(manifests / "moved.jsonl.gz")}
    assert len(load_cuts([{**source, "audio": str(manifests)}])[0]) == 2
    with pytest.raises(SpeechFTError, match=r"audio file .*/long.flac is missing"):
        load_cuts([source])
    with pytest.raises(UsageError, match="give cuts, or recordings"):
        load_cuts([{"kind": "lhotse"}])
    with pytest.raises(SpeechFTError, match=r"lhotse manifests are missing: .*/a.jsonl.gz, .*/b.jsonl.gz"):
        load_cuts(
            [{"kind": "lhotse", "recordings": f"{manifests}/a.jsonl.gz", "supervisions": f"{manifests}/b.jsonl.gz"}]
        )
    (manifests / "cuts.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(SpeechFTError, match=r"cuts.jsonl.gz is no manifest of lhotse's CutSet"):
        _load(manifests, "cuts")


def test_audio_that_has_changed_since_the_manifest(manifests):
    noise(manifests / "pair.wav", seconds=0.9, rate=44_100, channels=2)
    with pytest.raises(SpeechFTError, match=r"has 39690 samples at 44100 Hz, its manifest says 44100 at 44100"):
        _load(manifests, "recordings", "supervisions")


def test_a_recipe_of_lhotse_is_run_once(tmp_path, capsys):
    """yesno: 60 files of eight Hebrew words at 8 kHz, of which lhotse makes train and test."""
    for number in range(60):
        noise(tmp_path / f"{'_'.join(f'{number:08b}')}.wav", seconds=0.05, rate=8000)
    source = {"kind": "recipe", "name": "yesno", "root": str(tmp_path), "split": "train"}
    cuts = load_cuts([source])[0]
    assert len(cuts) >= 1 and {"YES", "NO"} & set(next(iter(cuts)).supervisions[0].text.split())
    assert "lhotse's recipe yesno reads" in capsys.readouterr().err
    assert list(load_cuts([source])[0].ids) == list(cuts.ids)
    assert "reads" not in capsys.readouterr().err
    with pytest.raises(SpeechFTError, match="found no part 'dev'; it found: test, train"):
        load_cuts([{**source, "split": "dev"}])
    with pytest.raises(UsageError, match="lhotse has no recipe 'yesnoo'"):
        load_cuts([{**source, "name": "yesnoo"}])
