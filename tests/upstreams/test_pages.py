"""Memory kept between batches: what the system itself counts is the reference."""

from __future__ import annotations

import os
import resource

import torch

from speechft.upstreams.pages import give_back_pages, keep_pages


def test_memory_is_kept_between_steps():
    """Freed tensors come again without the system's clearing their pages. In a child, which alone keeps them."""

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            parts = [torch.zeros(20_000_000) for _ in range(8)]
            del parts
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    child = os.fork()
    if child == 0:
        try:
            without, told = faults(), keep_pages()
            faults()
            kept = faults()
            give_back_pages()
            faults()  # what is still held is freed
            os._exit(0 if not told or (kept < 0.2 * without and faults() > 0.5 * without) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
