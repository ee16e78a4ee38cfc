"""Linear maps that targets are turned by, against numpy and scipy."""

import numpy as np
import scipy.linalg

from speechft.tasks.projections import Discriminant, Whitening


def test_whitened_parts_are_uncorrelated_and_keep_the_leading_components():
    generator = np.random.default_rng(0)
    frames = (generator.standard_normal((5000, 20)) @ generator.standard_normal((20, 20))).astype(np.float32)
    frames[:, 0] *= 100
    white = Whitening.fit(frames, 12, generator)(frames)
    assert np.allclose(np.cov(white.T), np.eye(12), atol=0.02)
    scaled = (frames - frames.mean(0)) / frames.std(0)
    leading = scaled @ np.linalg.svd(scaled, full_matrices=False)[2][:12].T
    fit = leading - white @ np.linalg.lstsq(white, leading, rcond=None)[0]
    assert np.abs(fit).max() < 1e-2  # a linear map away from those components, so nothing of them is lost


def _halves(generator: np.random.Generator, utterances: int = 3000, dim: int = 12) -> np.ndarray:
    """What lasts lies in two directions, weakly; what changes between halves is strong everywhere."""
    lasting = generator.standard_normal((utterances, 2)) @ generator.standard_normal((2, dim))
    changing = generator.standard_normal((utterances, 2, dim)) @ generator.standard_normal((dim, dim))
    return lasting[:, None] + 0.7 * changing


def _fit(halves: np.ndarray, components: int, **options: float) -> Discriminant:
    return Discriminant.fit(
        halves.reshape(-1, halves.shape[2]), np.arange(len(halves)).repeat(2), components, **options
    )


def test_discriminant_is_the_generalised_eigenproblem():
    """Its directions solve B v = λ W v (Fisher's criterion), by scipy's own solver."""
    halves = _halves(np.random.default_rng(0))
    whole, change = halves.mean(1), (halves[:, 0] - halves[:, 1]) / 2
    within, between = change.T @ change / len(change), np.cov(whole.T, bias=True)
    values, vectors = scipy.linalg.eigh(between, within)
    found = _fit(halves, 3, ridge=0.0)(whole)
    wanted = (whole - whole.mean(0)) @ vectors[:, ::-1][:, :3]
    for column in range(3):
        assert abs(np.corrcoef(found[:, column], wanted[:, column])[0, 1]) > 1 - 1e-6
    variances = found.var(0)
    assert np.allclose(variances / variances[0], np.sqrt(values[::-1][:3] / values[-1]), rtol=1e-3)
    assert np.isclose(variances.mean(), 1.0, rtol=1e-3)


def test_discriminant_components_are_uncorrelated_within_utterances():
    halves = _halves(np.random.default_rng(1))
    turn = _fit(halves, 4, ridge=0.0)
    change = (turn(halves[:, 0]) - turn(halves[:, 1])) / 2
    covariance = change.T @ change / len(change)
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3 * covariance.max())
    whole = turn(halves.mean(1)).var(0)
    assert np.allclose(whole * np.diag(covariance), whole[0] * covariance[0, 0], rtol=1e-3)  # half-way


def test_capped_discriminant_has_one_variance_within_up_to_the_cap():
    """The ratio of the two variances is scipy's generalised eigenvalue; the first component is held to the cap."""
    halves = _halves(np.random.default_rng(3))
    whole, change = halves.mean(1), (halves[:, 0] - halves[:, 1]) / 2
    values = scipy.linalg.eigh(np.cov(whole.T, bias=True), change.T @ change / len(change))[0][::-1][:4]
    cap = float(values[1] * 1.01)
    assert values[0] > cap
    turn = _fit(halves, 4, cap=cap, ridge=0.0)
    between = turn(whole).var(0)
    within = ((turn(halves[:, 0]) - turn(halves[:, 1])) / 2).var(0)
    assert np.allclose(between / between[1], np.minimum(values, cap) / values[1], rtol=1e-2)
    assert np.allclose(within[1:] / within[1], 1.0, rtol=2e-2) and within[0] < within[1]
    assert np.isclose(between.mean(), 1.0, rtol=1e-3)


def test_discriminant_survives_features_that_never_change():
    """A constant dimension, and fewer utterances than dimensions: the ridge keeps it finite."""
    halves = _halves(np.random.default_rng(2), utterances=5)
    halves[:, :, 0] = 3.0
    assert np.isfinite(_fit(halves, 4)(halves[:, 0])).all()
