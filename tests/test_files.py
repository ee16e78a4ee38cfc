"""Files appear whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speechft import files
from speechft.errors import DiskFullError, SpeechFTError
from speechft.files import claimed


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ValueError), files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_in_one_step(tmp_path):
    target = tmp_path / "model"
    for content in ("first", "second"):
        with files.whole_folder(target) as temporary:
            (temporary / "x").write_text(content)
            if content == "second":
                assert (target / "x").read_text() == "first"
    assert (target / "x").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "model"
    with files.whole_folder(target) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(RuntimeError), files.whole_folder(target) as temporary:
        (temporary / "x").write_text("new")
        raise RuntimeError
    assert (target / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_one_clear_line(tmp_path):
    with pytest.raises(SpeechFTError, match=r"disk is full.*free some space"), files.whole_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_file_where_a_folder_should_be_is_one_clear_line(tmp_path):
    (tmp_path / "out").write_text("mine")
    said = f"{tmp_path / 'out'} is a file; move it, or choose another folder"
    for place in (tmp_path / "out" / "report.json", tmp_path / "out" / "deep" / "a.json"):
        with pytest.raises(SpeechFTError) as found:
            files.write_text(place, "x")
        assert str(found.value) == f"{place} cannot be written, for {said}"
    with pytest.raises(SpeechFTError, match="is a file; move it, or"), files.whole_folder(tmp_path / "out" / "a"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_files_are_readable_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        with files.whole_file(tmp_path / "a") as temporary:
            temporary.write_text("x")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SpeechFTError, match=r"a\.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_a_full_disk_behind_another_librarys_error(tmp_path):
    """As safetensors tells it, which names the system's error in words alone; and as one error after another."""
    with pytest.raises(SpeechFTError, match="disk is full"), files.whole_file(tmp_path / "a"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SpeechFTError, match="disk is full"), files.whole_file(tmp_path / "a"):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected position") from None
    with pytest.raises(RuntimeError, match="something else"), files.whole_file(tmp_path / "a"):
        raise RuntimeError("something else")


def test_folders_exchange_names_in_one_step(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    if not files._exchange(one, other):
        pytest.skip("the system cannot")
    assert (one / "other").exists() and (other / "one").exists()
    assert not files._exchange(one, tmp_path / "missing") and (one / "other").exists()


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    test_a_folder_is_replaced_in_one_step(tmp_path)


def _holds(path: Path, seconds: str, begin: str = "pass") -> subprocess.Popen:
    """A process that holds a lock; returns once it does."""
    code = f"""
import os, sys, time
from pathlib import Path
from speechft.files import claimed
with claimed(Path(sys.argv[1])) as ours:
    {begin}
    print(ours, flush=True)
    time.sleep({seconds})
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


def _asked(lock: Path) -> str:
    """What another process is told."""
    code = (
        f"from pathlib import Path; from speechft.files import claimed; print(claimed(Path({str(lock)!r})).__enter__())"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_one_process_is_alone(tmp_path):
    lock = tmp_path / "new" / "lock"
    other = _holds(lock, "60")
    with claimed(lock) as ours:
        assert not ours
    assert lock.is_file()
    other.kill()
    other.wait()
    with claimed(lock) as ours:
        assert ours
    assert not lock.exists()


def test_a_forked_child_holds_nothing(tmp_path):
    """As data loaders' workers, which live on for some seconds when their parent is killed."""
    other = _holds(tmp_path / "lock", "60", "os.fork() or (time.sleep(3), os._exit(0))")
    other.kill()
    other.wait()
    with claimed(tmp_path / "lock") as ours:
        assert ours


def test_one_thread_is_alone_and_a_question_takes_nothing_away(tmp_path):
    """The system lets a process lock a file it holds once more, and frees it when either is closed."""
    lock = tmp_path / "lock"
    with claimed(lock) as ours:
        assert ours
        for _ in range(2):
            with claimed(tmp_path / "." / "lock") as again:
                assert not again
        assert _asked(lock) == "False\n"
    assert not lock.exists()


def test_a_lock_file_that_was_removed_after_it_was_opened_keeps_nobody_out(tmp_path, monkeypatch):
    """Its holder ends between our opening it and our locking it, and a third one makes the next."""
    lock, opened = tmp_path / "lock", []

    def late(path, *rest):
        descriptor = real(path, *rest)
        if Path(path) == lock and not opened:
            opened.append(descriptor)
            lock.unlink()
        return descriptor

    real = files.os.open
    monkeypatch.setattr(files.os, "open", late)
    with claimed(lock) as ours:
        assert ours and opened and lock.is_file()
        monkeypatch.undo()
        assert _asked(lock) == "False\n"


@pytest.mark.parametrize("unsure", [True, False])
def test_a_folder_that_cannot_be_written_is_not_the_locks_business(tmp_path, unsure):
    (tmp_path / "file").write_text("")
    with claimed(tmp_path / "file" / "lock", unsure=unsure) as ours:
        assert ours is unsure


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_torch_says_that_the_disk_is_full(tmp_path):
    """Given a path instead of a file, it raises an error of its own without the system's number."""
    with pytest.raises(DiskFullError, match="disk is full"), files.whole_file(tmp_path / "a"):
        files.save_torch({"x": torch.zeros(100_000)}, Path("/dev/full"))
    assert not list(tmp_path.iterdir())
    with files.whole_file(tmp_path / "b") as temporary:
        files.save_torch({"x": torch.ones(3)}, temporary)
    assert torch.equal(torch.load(tmp_path / "b", weights_only=True)["x"], torch.ones(3))


def test_a_full_disk_inside_a_folder_is_told_by_the_folder_s_own_name(tmp_path):
    def write():
        with files.whole_folder(tmp_path / "model") as folder, files.whole_file(folder / "weights.pt"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError) as found:
        write()
    assert found.value.what == f"the disk is full while writing {tmp_path / 'model'}"
    assert not list(tmp_path.iterdir())
