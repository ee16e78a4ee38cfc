"""The merge methods as their papers write them, in numpy float64: what tests compare with."""

from __future__ import annotations

import numpy as np


def linear(base, tuned, alpha):
    return (1 - alpha) * base + alpha * np.mean(tuned, axis=0)


def slerp(base, tuned, alpha):
    """Shoemake 1985: the two great-circle weights, the angle from the cosine."""
    (other,) = tuned
    cosine = np.dot(base.ravel(), other.ravel()) / np.linalg.norm(base) / np.linalg.norm(other)
    angle = np.arccos(np.clip(cosine, -1, 1))
    return (np.sin((1 - alpha) * angle) * base + np.sin(alpha * angle) * other) / np.sin(angle)


def task_arithmetic(base, tuned, alpha, weights):
    return base + alpha * sum(w * (one - base) for w, one in zip(weights, tuned, strict=True))


def elect(vectors):
    """TIES, section 3.2: sgn of the sum; then for each element the mean over {k: sgn of its value is the elected}."""
    merged = np.zeros_like(vectors[0])
    for place in np.ndindex(merged.shape):
        values = [vector[place] for vector in vectors]
        sign = np.sign(sum(values))
        agreeing = [value for value in values if np.sign(value) == sign and value != 0]
        merged[place] = np.mean(agreeing) if agreeing else 0.0
    return merged


def ties(base, tuned, alpha, density):
    trimmed = []
    for one in tuned:
        tau = one - base
        threshold = np.sort(np.abs(tau).ravel())[::-1][max(1, round(density * tau.size)) - 1]
        trimmed.append(np.where(np.abs(tau) >= threshold, tau, 0.0))
    return base + alpha * elect(trimmed)


def ties_of_models(base, tuned, alpha, density):
    """TIES as the paper has it: models are one long vector each, and so is what is trimmed."""
    names = sorted(base)
    vectors = [np.concatenate([model[name].ravel() for name in names]) for model in (base, *tuned)]
    merged = ties(vectors[0], vectors[1:], alpha, density)
    ends = np.cumsum([base[name].size for name in names])[:-1]
    return {name: part.reshape(base[name].shape) for name, part in zip(names, np.split(merged, ends), strict=True)}


def breadcrumbs(base, tuned, alpha, smallest, largest):
    total = np.zeros_like(base)
    for one in tuned:
        tau = one - base
        order = np.argsort(np.abs(tau).ravel(), kind="stable")
        mask = np.zeros(tau.size)
        mask[order[round(smallest * tau.size) : tau.size - round(largest * tau.size)]] = 1.0
        total += mask.reshape(tau.shape) * tau
    return base + alpha * total


def model_stock(base, tuned, alpha):
    taus = [(one - base).ravel() for one in tuned]
    count = len(taus)
    cosines = [
        taus[i] @ taus[j] / np.linalg.norm(taus[i]) / np.linalg.norm(taus[j]) for i in range(count) for j in range(i)
    ]
    cosine = np.mean(cosines)
    ratio = count * cosine / (1 + (count - 1) * cosine)
    return (1 - alpha) * base + alpha * (ratio * np.mean(tuned, axis=0) + (1 - ratio) * base)


def fisher(base, tuned, alpha, informations):
    models, weights = [base, *tuned], [1 - alpha, *[alpha / len(tuned)] * len(tuned)]
    above = sum(w * f * m for w, f, m in zip(weights, informations, models, strict=True))
    return above / sum(w * f for w, f in zip(weights, informations, strict=True))


def regmean(base, tuned, alpha, grams, scale):
    models, weights = [base, *tuned], [1 - alpha, *[alpha / len(tuned)] * len(tuned)]
    scaled = [gram * (scale + (1 - scale) * np.eye(len(gram))) for gram in grams]
    left = sum(w * g for w, g in zip(weights, scaled, strict=True))
    right = sum(w * g @ m.T for w, g, m in zip(weights, scaled, models, strict=True))
    return (np.linalg.inv(left) @ right).T


def average(base, tuned, alpha, decay):
    """The recursion of a moving average, divided by the share that its start leaves (as Adam corrects its moments)."""
    if decay == 1.0:
        return base + alpha * (np.mean(tuned, axis=0) - base)
    mean = np.zeros_like(base)
    for one in tuned:
        mean = decay * mean + (1 - decay) * one
    return base + alpha * (mean / (1 - decay ** len(tuned)) - base)


def magprune_probabilities(tau, density, epsilon):
    """DELLA, section 3: p_i = p − ε/2 + ε·rank/(n − 1), row by row.

    The largest element has rank 0; what is returned is 1 − p_i, the probability to stay.
    """
    rows = np.abs(tau).reshape(-1, tau.shape[-1]) if tau.ndim else np.abs(tau).reshape(1, 1)
    kept = np.empty_like(rows)
    for row, out in zip(rows, kept, strict=True):
        for place, value in enumerate(row):
            rank = sum(other > value for other in row)
            out[place] = 1 - ((1 - density) - epsilon / 2 + epsilon * rank / (len(row) - 1))
    return kept.reshape(tau.shape)
