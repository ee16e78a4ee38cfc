"""SpecAugment of a batch against s3prl's own module."""

from __future__ import annotations

import time
from itertools import product

import pytest
import torch
from small import superb_settings

from speechft.superb import compat
from speechft.superb.specaug import augmented

COUNTS = [31, 120, 7, 64]


def module(**changes):
    compat.install()
    from s3prl.downstream.specaug import SpecAug

    return SpecAug(**{**superb_settings()["superb"]["asr"]["specaug"], **changes})


def both(specaug, counts=COUNTS, dim=80, seed=1):
    """Result, gradient and the next random number, of ours and of theirs."""
    torch.manual_seed(0)
    frames, pull = torch.randn(sum(counts), dim), torch.randn(sum(counts), dim)
    found = []
    for ours in (True, False):
        given = frames.clone().requires_grad_()
        torch.manual_seed(seed)
        if ours:
            result = augmented(specaug, given * 2, counts)
        else:
            result = torch.cat(list(specaug(list((given * 2).split(counts)))[0]))
        (result * pull).sum().backward()
        found.append((result.detach(), given.grad, torch.rand(())))
    return found


@pytest.mark.parametrize(
    ("warp", "freq", "when"), [one for one in product((True, False), repeat=3) if any(one)]
)  # fmt: skip
def test_results_gradients_and_random_numbers_are_s3prls(warp, freq, when):
    specaug = module(apply_time_warp=warp, apply_freq_mask=freq, apply_time_mask=when)
    for seed in range(5):
        (ours, own_grad, own_next), (theirs, their_grad, their_next) = both(specaug, seed=seed)
        assert torch.equal(ours, theirs) and torch.equal(own_next, their_next)
        assert torch.equal(own_grad, their_grad) and own_grad.abs().sum() > 0
        assert not torch.equal(ours, both(specaug, seed=seed + 100)[0][0])


def test_adaptive_masks_too():
    specaug = module(adaptive=True, adaptive_number_ratio=0.1, adaptive_size_ratio=0.2)
    (ours, own_grad, _), (theirs, their_grad, _) = both(specaug)
    assert torch.equal(ours, theirs) and torch.equal(own_grad, their_grad)


def test_its_gradient_does_not_cost_a_batch_for_each_utterance():
    """s3prl's takes more than ten times as long on an idle machine."""
    specaug, counts = module(apply_time_warp=False), [200] * 64
    frames = torch.randn(sum(counts), 128, requires_grad=True)

    def seconds(work):
        began = time.perf_counter()
        work().sum().backward()
        return time.perf_counter() - began

    ours = min(seconds(lambda: augmented(specaug, frames, counts)) for _ in range(5))
    theirs = min(seconds(lambda: torch.cat(list(specaug(list(frames.split(counts)))[0]))) for _ in range(3))
    assert ours < theirs / 3
