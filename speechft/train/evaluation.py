"""The dev set, by all processes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from speechft.data.loader import in_order
from speechft.train import devices, memory
from speechft.train.randomness import seed_all

if TYPE_CHECKING:
    from accelerate import Accelerator
    from lhotse import CutSet


def evaluate(
    accelerator: Accelerator, learner: Any, dev: CutSet, workers: int, seed: int, options: Mapping[str, Any]
) -> dict[str, float]:
    """The task's metrics over a set, in float32, the same on every process.

    Each process scores its share of the batches, and all sum up the scores of all. Each batch has a random state of its
    own (masks), the same at every evaluation and whoever takes it.

    Args:
        accelerator: device and processes.
        learner: upstream and head.
        dev: the set.
        workers: reading processes.
        seed: the run's.
        options: the `trainer` group; `eval_seconds` of audio are in a batch.

    Raises:
        SpeechFTError: out of memory.
    """
    task, upstream, device = learner.task, learner.upstream, accelerator.device
    rank, world = accelerator.process_index, accelerator.num_processes
    learner.eval()
    with torch.no_grad():
        scores = []
        for turn, batch in enumerate(in_order(dev, float(options["eval_seconds"]), rank, world, workers)):
            number = turn * world + rank
            seed_all(seed, number)
            try:
                scores.append((number, list(task.score(upstream, batch.to(device)))))
            except RuntimeError as error:
                raise memory.explained(error, "in an evaluation", options, batch) from error
    ordered = sorted(devices.gathered(scores), key=lambda item: item[0])
    metrics = task.summary([score for _, own in ordered for score in own])
    learner.train()
    return metrics
