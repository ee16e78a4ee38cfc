"""The comparison of merges, at a tiny size."""

import ctypes
import json
import mmap
import sys

import pytest

from speechft.bench import merge, merge_sides
from speechft.bench.command import main
from speechft.errors import SpeechFTError


@pytest.fixture
def in_process(monkeypatch):
    """The sides in this process: what they import is here already."""

    def run(python, side, base, tuned, out, threads):
        assert python == sys.executable
        return merge_sides.measure(side, base, tuned, out, 0.25)

    monkeypatch.setattr(merge, "_run", run)


def test_the_last_line_has_every_figure(in_process, capsys):
    assert main(["merge", "--size", "tiny", "--repetitions", "2"]) == 0
    *shown, last = capsys.readouterr().out.strip().splitlines()
    record = json.loads(last)
    speed, weights = record["bytes_per_second"], record["parent_bytes"]
    assert record["bench"] == "merge" and list(speed) == ["copy", "ours", "ours_checked", "published"]
    for name, measured in record["seconds_measured"].items():
        assert len(measured) == 2
        streams = 2 if name == "copy" else 3
        assert speed[name] == pytest.approx(streams * weights / (sum(measured) / 2))
        assert any(f"| {name} |" in line for line in shown)
    assert record["ratio"] == pytest.approx(speed["ours"] / speed["copy"])
    assert record["peak_by_parent"]["ours"] == pytest.approx(record["peak_bytes"]["ours"] / weights)
    assert max(record["largest_difference"].values()) < 1e-6 and len(record["largest_difference"]) == 3
    assert record["skipped"] == {"mergekit": "no --mergekit was given"}
    assert "mergekit was not measured: no --mergekit was given" in shown


def cached_pages(path):
    """How many pages of a file the system holds in memory (mincore)."""
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    first = ctypes.c_char.from_buffer(mapped)
    pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped)), pages) == 0
    return sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="mincore and posix_fadvise are Linux's")
def test_cold_parents_are_out_of_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"x" * 4_000_000)
    if cached_pages(path) < 900:
        pytest.skip("this file system keeps no cache")
    merge.forget(path.parent)
    assert cached_pages(path) < 100

    forgotten = []
    monkeypatch.setattr(merge, "forget", lambda *folders: forgotten.append([folder.name for folder in folders]))
    monkeypatch.setattr(
        merge, "_run", lambda python, side, base, tuned, out, threads: merge_sides.measure(side, base, tuned, out, 0.25)
    )
    record = merge.measure(merge.Setting(size="tiny", repetitions=1, cold=True, folder=str(tmp_path)))
    assert record["cold"] and forgotten == [["pretrained", "finetuned"]] * 4
    assert "files read from the disk" in merge.table(record)[0]


def test_a_wrong_merge_is_noticed(in_process, monkeypatch, tmp_path):
    def wrong(base, tuned, out, alpha):
        return merge_sides.ours(base, tuned, out, alpha + 0.01)

    monkeypatch.setitem(merge_sides.SIDES, "ours", wrong)
    with pytest.raises(SpeechFTError, match=r"the weights of ours-out differ by .*; this comparison is void"):
        merge.measure(merge.Setting(size="tiny", repetitions=1, folder=str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "huge"], "unknown --size 'huge'; known: base, large, tiny"),
        (["--repetitions", "0"], "--repetitions is 0; give a whole number of at least 1"),
        (
            ["--mergekit", "/nowhere/python"],
            "--mergekit /nowhere/python is no file; give the python of its environment",
        ),
    ],
)
def test_wrong_use_is_one_line(words, message, capsys):
    assert main(["merge", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"speechft: error: {message}\n"


def test_memory_is_counted_from_where_it_begins(tmp_path):
    def taken(size):
        """Memory from the system itself: what other tests have freed may still be this process's."""
        memory = mmap.mmap(-1, size)
        for place in range(0, size, 4096):
            memory[place] = 1
        return memory

    held = taken(20_000_000)
    before, peak = merge_sides._resident()
    assert before > len(held) and peak() - before < 5_000_000
    taken(60_000_000).close()
    assert 50_000_000 < peak() - before < 80_000_000
