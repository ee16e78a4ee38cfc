"""Time and memory of training steps, on the clock and in the processor's own time."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Marks:
    """When each step began, on the clock and in this process's CPU time, and the seconds of audio in it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.clock: list[float] = []
        self.cpu: list[float] = []
        self.audio: list[float] = []

    def add(self, audio: float) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        self.clock.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.audio.append(audio)

    def figures(self) -> dict[str, float]:
        """Of the steps after the first, which warms up."""
        return {
            "seconds": self.clock[-1] - self.clock[1],
            "cpu_seconds": self.cpu[-1] - self.cpu[1],
            "audio_seconds": sum(self.audio[1:-1]),
            "steps": len(self.clock) - 2,
        }


class Stopwatch:
    """Time in methods, without that in other watched methods they call.

    Attributes:
        seconds: by name.
    """

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []
        self._device = device

    @contextmanager
    def on(self, owner: Any, method: str, name: str) -> Iterator[None]:
        original = getattr(owner, method)
        self.seconds[name] = 0.0

        def timed(*given: Any, **named: Any) -> Any:
            began = self._now()
            self._inside.append(0.0)
            try:
                return original(*given, **named)
            finally:
                spent = self._now() - began
                self.seconds[name] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        setattr(owner, method, timed)
        try:
            yield
        finally:
            setattr(owner, method, original)

    def _now(self) -> float:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()


def peak(device: str) -> float:
    """The most memory so far, in bytes: of the GPU, or of this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
