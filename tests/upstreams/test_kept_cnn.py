"""A kept CNN output is what the CNN gives, for the very waveform, and never for another."""

import pytest
import torch

from speechft.data.loader import digest
from speechft.upstreams.load import load_upstream


@pytest.fixture
def waves():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) for length in (4000, 7001, 120)]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPEECHFT_CACHE", str(tmp_path / "cache"))


def _announced(upstream, waves, place="memory", budget=1.0):
    kept = upstream.keep_cnn(place, budget)
    kept.expect(waves, [digest(wave) for wave in waves])
    return kept


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_it_is_transformers_own_output_for_each_waveform(upstream_folder, waves, place):
    upstream = load_upstream(upstream_folder)
    kept = _announced(upstream, waves, place)
    for _ in range(2):
        features, lengths = upstream.features(waves)
        for row, wave in enumerate(waves):
            frames = int(upstream.frame_counts(lengths)[row])
            padded = torch.nn.functional.pad(wave, (0, max(0, 692 - len(wave))))  # a frame hears 692
            with torch.no_grad():
                theirs = upstream.model.feature_extractor(padded[None])[0]
            assert torch.allclose(features[row, :, :frames], theirs, atol=1e-5) and theirs.shape[1] == frames
            assert not features[row, :, frames:].any()
    assert (kept.found, kept.computed) == (3, 3)


def test_hidden_states_are_those_without_keeping(upstream_folder, waves):
    upstream = load_upstream(upstream_folder)
    plain = upstream(waves)
    _announced(upstream, waves)
    kept = upstream(waves)
    assert torch.equal(plain.frames, kept.frames)
    for a, b in zip(plain.states, kept.states, strict=True):
        for row, count in enumerate(plain.frames.tolist()):
            assert torch.allclose(a[row, :count], b[row, :count], atol=1e-5)


def test_a_changed_waveform_is_not_looked_up(upstream_folder, waves):
    """An augmentation gives other tensors; the same tensors with other content have another hash."""
    upstream = load_upstream(upstream_folder)
    kept = _announced(upstream, waves)
    upstream.features([wave * 2 for wave in waves])
    assert (kept.found, kept.computed) == (0, 0)
    before, _ = upstream.features(waves)
    waves[0].mul_(0.5)
    kept.expect(waves, [digest(wave) for wave in waves])
    after, _ = upstream.features(waves)
    assert (kept.found, kept.computed) == (2, 4) and not torch.equal(before[0], after[0])


def test_the_disk_is_shared_by_the_same_cnn_only_and_mends_itself(upstream_folder, waves, tmp_path):
    from small import save_upstream

    first, _ = (upstream := load_upstream(upstream_folder), _announced(upstream, waves, "disk"))
    wanted, _ = first.features(waves)
    second = load_upstream(upstream_folder)
    files = sorted((tmp_path / "cache").glob("cnn/*/*/*"))
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:50])
    kept = _announced(second, waves, "disk")
    assert torch.equal(second.features(waves)[0], wanted) and (kept.found, kept.computed) == (2, 1)
    other = load_upstream(save_upstream(tmp_path / "other", seed=5))
    kept = _announced(other, waves, "disk")
    other.features(waves)
    assert (kept.found, kept.computed) == (0, 3)
    normalised = load_upstream(upstream_folder, normalize=True)
    kept = _announced(normalised, waves, "disk")
    normalised.features(waves)
    assert kept.found == 0


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_is_over_the_budget_is_computed_each_time(upstream_folder, waves, place, capsys):
    upstream = load_upstream(upstream_folder)
    kept = _announced(upstream, waves, place, budget=2100e-9)  # 24 channels, 12 + 21 + 1 frames
    first, _ = upstream.features(waves)
    again, _ = upstream.features(waves)
    assert torch.equal(first, again) and 0 < kept.found < 3
    assert capsys.readouterr().err.count("what there is room for") == 1


def test_half_precision_has_entries_of_its_own(upstream_folder, waves):
    upstream = load_upstream(upstream_folder)
    kept = _announced(upstream, waves)
    full, _ = upstream.features(waves)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = upstream.features(waves)
    assert kept.found == 0 and half.dtype == torch.bfloat16
    assert torch.equal(upstream.features(waves)[0], full) and kept.found == 3


def test_crops_beside_whole_waveforms_are_computed(upstream_folder, waves):
    """As where a task crops what is long: what was announced is found, the rest is computed, alone."""
    upstream = load_upstream(upstream_folder)
    kept = _announced(upstream, waves)
    upstream(waves)
    mixed = [waves[0], waves[1][100:], waves[2]]
    found = upstream(mixed)
    assert (kept.found, kept.computed) == (2, 3)
    upstream.keep_cnn("memory", 1.0)  # announces nothing
    plain = upstream(mixed)
    assert torch.equal(found.frames, plain.frames)
    for a, b in zip(found.states, plain.states, strict=True):
        for row, count in enumerate(plain.frames):
            assert torch.allclose(a[row, :count], b[row, :count], atol=1e-5)
