"""What an evaluation will take, against what it then takes."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from tiny_corpora import save_upstream

from speechft.console import Progress
from speechft.errors import UsageError
from speechft.superb import batches, timing
from speechft.superb import estimate as module
from speechft.superb.estimate import as_json, estimate, lines, worth_saying
from speechft.superb.evaluate import evaluate, prepare


def of(upstreams, tasks, cfg, engine=None, measure=True):
    settings, sources, chosen = prepare(upstreams, tasks, engine, None, cfg)
    parts = estimate(settings, sources, chosen, measure)
    return parts, lines(parts, settings)


def quiet() -> Progress:
    return Progress(io.StringIO())


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.bin"))


def seconds(*folders) -> float:
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".wav", ".flac")]
    return sum(soundfile.info(path).duration for path in files)


def test_it_foretells_what_is_read_and_written(configuration, corpora, upstream_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "encode", None)  # nothing is measured for so little
    other = save_upstream(tmp_path / "other", seed=1)
    cfg = configuration()
    parts, told = of([upstream_folder, other], ["pr", "asr", "sid"], cfg)
    assert not (tmp_path / "store").exists() and not (tmp_path / "out").exists()
    assert [(part.upstream, part.task) for part in parts] == [
        (name, task) for name in ("tiny", "other") for task in ("pr", "asr", "sid")
    ]
    pr, asr, sid = parts[:3]
    assert pr.encode_seconds == pytest.approx(seconds(corpora.root / "ls"), abs=0.01)
    assert sid.encode_seconds == pytest.approx(seconds(corpora.root / "vox"), abs=0.01)
    assert (asr.encode_seconds, asr.write_bytes, asr.shared_with) == (0, 0, ["pr"])
    assert all(part.speed is part.feature_seconds is None for part in parts) and not worth_saying(parts[:3])
    assert "features shared with pr" in told[1] and len(told) == 7
    evaluate([upstream_folder], ["pr"], cfg=cfg, progress=quiet())
    written = size(tmp_path / "store")
    assert written == pr.write_bytes > 0 == pr.stored_bytes
    evaluate([upstream_folder], ["sid"], cfg=cfg, progress=quiet())
    assert size(tmp_path / "store") - written == sid.write_bytes
    again, told = of([upstream_folder], ["pr", "asr", "sid"], cfg)
    assert [part.finished for part in again] == [True, False, True] and told[0] == "tiny pr: finished before"
    assert again[1].stored_bytes == written and again[1].write_bytes == again[1].encode_seconds == 0
    assert as_json(again)[1]["feature_seconds"] == 0


def test_what_does_not_fit_is_heard_in_batches(configuration, upstream, monkeypatch):
    """The count of waveforms that the upstream then hears, times their mean length."""
    cfg = configuration({"accumulate": 2}, budget_gb=1e-6)
    (part,), told = of([upstream], ["pr"], cfg, measure=False)
    forward, heard = type(upstream).forward, []

    def counted(self, waves):
        heard.extend(len(wave) / 16_000 for wave in waves)
        return forward(self, waves)

    monkeypatch.setattr(type(upstream), "forward", counted)
    evaluate([upstream], ["pr"], cfg=cfg, progress=quiet())
    assert part.encode_seconds == part.write_bytes == 0
    # s3prl's Featurizer tries a second of noise first; batches are drawn, so their lengths are about the mean
    assert part.heard_seconds == pytest.approx(sum(heard) - 1, rel=0.2)
    assert "heard in batches of the head" in told[0]
    (whole,), _ = of([upstream], ["pr"], {**cfg, "lr": [1e-2, 1e-3]}, engine="s3prl", measure=False)
    assert whole.heard_seconds == pytest.approx(2 * part.heard_seconds)


def test_folds_share_their_features(configuration, upstream, tmp_path):
    cfg = configuration()
    (part,), _ = of([upstream], ["er"], cfg)
    evaluate([upstream], ["er"], cfg=cfg, progress=quiet())
    assert part.write_bytes == size(tmp_path / "store") > 0


def test_speed_and_head_are_measured(configuration, upstream, monkeypatch):
    monkeypatch.setattr(module, "WORTH_SECONDS", 1.0)
    monkeypatch.setattr(timing, "UPSTREAM_SECONDS", 0.5)
    monkeypatch.setattr(timing, "HEAD_SECONDS", 0.2)
    cfg = configuration({"steps": 100_000, "eval_step": 5000}, devices="cpu,cpu")
    (sid, pr), told = of([upstream], ["sid", "pr"], cfg)
    assert sid.speed == pr.speed > 1
    assert sid.feature_seconds == pytest.approx(sid.encode_seconds / 2 / sid.speed)
    assert 10 < sid.head_seconds < 10_000 and 10 < pr.head_seconds < 10_000
    assert worth_saying([sid, pr])
    assert (
        "head about" in told[0]
        and "head about" in told[1]
        and "not timed" not in told[2]
        and "not be measured" not in told[2]
    )
    (sid, pr), told = of([upstream], ["sid", "pr"], cfg, engine="s3prl")  # whose loop is not timed
    assert sid.head_seconds is pr.head_seconds is None and sid.feature_seconds > 0
    assert "shows once it trains" in told[1] and "and the training of heads that were not timed" in told[2]


def test_a_head_on_features_too_large_for_memory_is_measured(configuration, upstream, monkeypatch):
    """As VoxCeleb1's are on a CPU: each batch is then gathered into the same room."""
    monkeypatch.setattr(module, "WORTH_SECONDS", 1.0)
    monkeypatch.setattr(timing, "UPSTREAM_SECONDS", 0.5)
    monkeypatch.setattr(timing, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(batches, "_RESIDENT_BYTES", 0)
    (sid,), _ = of([upstream], ["sid"], configuration({"steps": 100_000, "eval_step": 5000}))
    assert sid.head_seconds is not None and 10 < sid.head_seconds < 10_000


def test_heads_on_frames_are_timed_on_a_cpu(configuration, upstream, monkeypatch):
    """Shortened or whole, with all kinds of labels, and with several rates."""
    monkeypatch.setattr(timing, "HEAD_SECONDS", 0.02)
    cfg = configuration({"steps": 100_000, "eval_step": 5000})
    cfg["superb"]["asr"]["lr"] = [1e-3, 1e-4]
    parts, _ = of([upstream], ["asr", "sd"], cfg)
    assert [part.task for part in parts if part.head_seconds is None] == []


@pytest.mark.parametrize("shortens", [True, False])
def test_a_head_on_frames_takes_what_its_frames_take(shortens, monkeypatch):
    """A clock that every frame moves by 2 ms: a batch of 8 utterances of 1500 frames takes 24 s."""
    now = 100.0
    monkeypatch.setattr(timing.time, "monotonic", lambda: now)
    layout = SimpleNamespace(rows=np.full(50, 1500), layers=1, dim=1)
    noise = timing._Frames(None, layout, shortens)  # type: ignore[arg-type]
    with pytest.raises(timing._Enough):
        for _ in range(20):
            rows, counts = noise.gather(range(8))
            assert len(rows) == sum(counts)
            now += 0.002 * len(rows)
    assert noise.frame_seconds() == pytest.approx(0.002) and noise.batch_rows() == 8 * 1500
    assert len(noise.rows) == (3 if shortens else 1) and max(counts) == (125 if shortens else 1500)
    assert now - 100 < (timing._HEAD_AT_MOST if shortens else 25)


def test_the_batch_that_wakes_the_device_does_not_count(monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing.time, "monotonic", lambda: now)
    noise = timing._Frames(None, SimpleNamespace(rows=np.full(50, 100), layers=1, dim=1), False)  # type: ignore[arg-type]
    with pytest.raises(timing._Enough):
        while True:
            noise.gather(range(4))
            now += 5.0 if now == 0 else 0.4
    assert noise.frame_seconds() == pytest.approx(0.001)


def test_a_measured_speed_is_the_speed(upstream, configuration, monkeypatch):
    """A clock that every waveform moves by a tenth of its length."""
    now = 0.0

    def slow(one, waves, *rest):
        nonlocal now
        now += sum(len(wave) for wave in waves) / 16_000 / 10
        return []

    monkeypatch.setattr(timing, "encode", slow)
    monkeypatch.setattr(timing.time, "monotonic", lambda: now)
    settings, *_ = prepare([upstream], ["sid"], None, None, configuration())
    assert timing.speed_of(upstream, [16_000 * length for length in range(1, 30)], settings) == pytest.approx(10)
    assert now <= timing.UPSTREAM_SECONDS


def test_batches_suit_the_device(configuration):
    from speechft.superb.settings import Settings

    def seconds(**keys):
        return Settings.read(configuration(**keys)).batch_seconds

    assert (seconds(), seconds(batch_seconds=30)) == (32, 30)
    with pytest.raises(UsageError, match="batch_seconds=0 is not above 0"):
        seconds(batch_seconds=0)


def test_every_task_can_be_estimated(configuration, upstream):
    """Nothing is left out, whatever a task reads and however it is run."""
    from speechft.superb.tasks import NAMES

    for engine in ("fast", "s3prl"):
        parts, _ = of([upstream], list(NAMES), configuration(), engine, measure=False)
        assert [part.task for part in parts] == list(NAMES)
        for part in parts:
            audio = part.encode_seconds if engine == "fast" else part.heard_seconds
            assert audio > 0 or part.shared_with, part
            assert part.write_bytes > 0 or engine == "s3prl" or part.shared_with, part
