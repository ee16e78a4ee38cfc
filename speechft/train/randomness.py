"""Random state as a function of where the run is, so that nothing of it needs saving."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(*numbers: int) -> None:
    """Set every generator (torch's on all devices, Python's, numpy's) from a few numbers: seed, step, batch."""
    words = np.random.SeedSequence([number & 0xFFFFFFFF for number in numbers]).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
