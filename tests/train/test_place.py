"""Which folder a run has, without training one."""

from contextlib import ExitStack

import pytest

from speechft.config.compose import write_config
from speechft.errors import SpeechFTError
from speechft.files import claimed, write_json
from speechft.runs import Run
from speechft.train.place import owned, place

SETTINGS = {"name": "mine", "seed": 0, "trainer": {"lr": 1e-4, "log_every": 5}}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    return tmp_path


def interrupted(runs, number, **changes):
    """A run's folder as a kill leaves it."""
    run = Run(runs / f"mine-2025010{number}-120000-77")
    (run.checkpoints / "step-5").mkdir(parents=True)
    write_config(run.config, {**SETTINGS, **changes})
    write_json(run.pretrained, {})
    return run


def chosen(settings=SETTINGS, out=None):
    with place(out, settings) as found:
        return found


def test_the_newest_of_the_same_configuration(runs, capsys):
    run = interrupted(runs, 1)
    assert chosen() == (run.folder, True) and f"{run.folder} was interrupted" in capsys.readouterr().err
    newer = interrupted(runs, 3, trainer={"lr": 1e-4, "log_every": 1})  # how often is logged changes no result
    interrupted(runs, 4, trainer={"lr": 2e-4})
    assert chosen() == (newer.folder, True)
    newer.finetuned.mkdir()
    (newer.finetuned / "model.safetensors").touch()
    assert chosen() == (run.folder, True)
    assert chosen(out=runs / "there") == (runs / "there", False)
    new, held = chosen({**SETTINGS, "seed": 1})
    assert new.name.startswith("mine-2") and not new.exists() and not held


def test_a_finished_run_of_the_same_configuration_is_named_and_left(runs, capsys):
    run = interrupted(runs, 1)
    run.finetuned.mkdir()
    (run.finetuned / "model.safetensors").touch()
    new, held = chosen()
    assert (
        new != run.folder
        and not held
        and f"{run.folder} is finished, with this configuration" in capsys.readouterr().err
    )
    chosen({**SETTINGS, "seed": 1})
    assert not capsys.readouterr().err


def test_only_the_lock_of_the_same_configuration_is_asked_for(runs, monkeypatch):
    """Many runs that are typed again at once, each with its own seed, must not take each other's for being trained."""
    folders = [interrupted(runs, seed, seed=seed).folder for seed in (1, 2, 3)]
    asked = []

    def claim(path, **options):
        asked.append(path.parent)
        return claimed(path, **options)

    monkeypatch.setattr("speechft.train.place.claimed", claim)
    with ExitStack() as all_at_once:
        for seed, folder in zip((1, 2, 3), folders, strict=True):
            assert all_at_once.enter_context(place(None, {**SETTINGS, "seed": seed})) == (folder, True)
    assert asked == folders


def test_of_two_at_once_the_second_begins_anew(runs):
    run = interrupted(runs, 1)
    with place(None, SETTINGS) as (first, held):
        assert first == run.folder and held
        second, held = chosen()
        assert second != first and not held
        busy = pytest.raises(SpeechFTError, match="is being trained by another process")
        with owned(run, held=True), busy, owned(run, held=False):
            pass
    with owned(run, held=False), claimed(run.lock) as ours:
        assert not ours


@pytest.mark.parametrize("damage", ["config", "empty", "unreadable", "unlockable", "not begun"])
def test_what_cannot_be_gone_on_with_is_passed_over(damage, runs, monkeypatch):
    run = interrupted(runs, 1)
    if damage == "unlockable":  # as where the file system has no locks, or the folder is another user's
        monkeypatch.setattr("speechft.files._lock", lambda *_: (runs / "nowhere" / "lock").read_text())
    elif damage == "unreadable":
        monkeypatch.setattr(Run, "finished", property(lambda run: (runs / "nowhere").stat()))
    elif damage == "not begun":
        (run.checkpoints / "step-5").rmdir()
    else:
        run.config.write_text("a: [1\nb: {" if damage == "config" else "")
    found, held = chosen()
    assert found != run.folder and not held


def test_a_sequence_is_known_by_the_whole_of_it(runs):
    run = Run(runs / "mine-20250101-120000-77")
    run.folder.mkdir()
    write_config(run.sequence, SETTINGS)
    assert chosen() == (run.folder, True)
    assert chosen({**SETTINGS, "seed": 2})[0] != run.folder
