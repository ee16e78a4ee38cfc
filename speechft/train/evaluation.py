"""The dev set, by all processes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from speechft.data.loader import in_order
from speechft.train import devices
from speechft.train.randomness import seed_all

if TYPE_CHECKING:
    from accelerate import Accelerator
    from lhotse import CutSet

_SECONDS = 120.0
"""Of audio in a batch."""


def evaluate(accelerator: Accelerator, learner: Any, dev: CutSet, workers: int, seed: int) -> dict[str, float]:
    """The task's metrics over a set, in float32, the same on every process.

    Each process scores its share of the batches, and all sum up the scores of all. Each batch has a random state of its
    own (masks), the same at every evaluation and whoever takes it.

    Args:
        accelerator: device and processes.
        learner: upstream and head.
        dev: the set.
        workers: reading processes.
        seed: the run's.
    """
    task, upstream, device = learner.task, learner.upstream, accelerator.device
    rank, world = accelerator.process_index, accelerator.num_processes
    learner.eval()
    with torch.no_grad():
        scores = []
        for turn, batch in enumerate(in_order(dev, _SECONDS, rank, world, workers)):
            number = turn * world + rank
            seed_all(seed, number)
            scores.append((number, list(task.score(upstream, batch.to(device)))))
    ordered = sorted(devices.gathered(scores), key=lambda item: item[0])
    metrics = task.summary([score for _, own in ordered for score in own])
    learner.train()
    return metrics
