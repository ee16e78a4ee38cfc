"""Memory kept between batches: what the system itself counts is the reference."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

from speechft.upstreams.pages import give_back_pages, keep_pages


def in_a_child(check):
    """In a process of its own, which alone keeps its memory; `check` says whether all is well."""
    child = os.fork()
    if child == 0:
        well = False
        try:
            give_back_pages()  # tests before this one may have kept them
            well = check()
        finally:
            os._exit(0 if well else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def fill():
    parts = [torch.zeros(4_000_000) for _ in range(8)]
    return len(parts)


def test_memory_is_kept_between_steps():
    """Freed tensors come again without the system's clearing their pages."""

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            fill()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def check():
        without, told = faults(), keep_pages()
        faults()
        return not told or faults() < 0.2 * without

    assert in_a_child(check)


def test_memory_is_given_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def check():
        before = resident()
        if not keep_pages():
            return True
        fill()
        kept = resident()
        return give_back_pages() and kept - before > 100_000_000 and resident() - before < 20_000_000

    assert in_a_child(check)
