"""One contender of `scripts/bench merge` in a process of its own: does its merge once and prints what it took as JSON.

Run by path, as mergekit lives in another environment: nothing of speechft is imported but by its own side. Every side
leaves its result flushed to the disk. Seconds and the peak of the resident memory count from when all imports are done;
what is mapped from files counts as resident, as the system has it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], object]


def copy(base: Path, tuned: Path, out: Path, alpha: float) -> Work:
    """A plain copy of one parent's weights."""
    del tuned, alpha
    return lambda: shutil.copyfile(base / "model.safetensors", out / "model.safetensors")


def ours(base: Path, tuned: Path, out: Path, alpha: float, check: bool = False) -> Work:
    """`speechft merge --no-check`: one pass, hashes and norms with it."""
    from speechft.merge.merge import merge

    return lambda: merge(base, [tuned], [alpha], out=out, to="hf", check=check)


def ours_checked(base: Path, tuned: Path, out: Path, alpha: float) -> Work:
    """`speechft merge`: then the result is reloaded and run."""
    from accelerate import init_empty_weights  # noqa: F401 (imported before the clock starts)
    from transformers import HubertModel  # noqa: F401

    return ours(base, tuned, out, alpha, check=True)


def published(base: Path, tuned: Path, out: Path, alpha: float) -> Work:
    """The published script's way: all of both models through `torch.load`, a dictionary merged, `torch.save`."""
    import torch

    def work() -> None:
        parents = [torch.load(folder / "pytorch_model.bin", map_location="cpu") for folder in (base, tuned)]
        merged = {name: parents[0][name] + alpha * (parents[1][name] - parents[0][name]) for name in parents[0]}
        torch.save(merged, out / "pytorch_model.bin")

    return work


def mergekit(base: Path, tuned: Path, out: Path, alpha: float) -> Work:
    """mergekit's `linear` with its own defaults."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import HubertModel

    # mergekit asks every model for its vocabulary, and a HubertModel answers that it cannot say.
    setattr(HubertModel, "get_input_embeddings", lambda model: None)  # noqa: B010
    models = [{"model": str(folder), "parameters": {"weight": weight}}
              for folder, weight in ((base, 1 - alpha), (tuned, alpha))]  # fmt: skip
    config = MergeConfiguration.model_validate({"merge_method": "linear", "dtype": "float32", "models": models})
    options = MergeOptions(copy_tokenizer=False, quiet=True)
    return lambda: run_merge(config, str(out), options)


SIDES = {"copy": copy, "ours": ours, "ours_checked": ours_checked, "published": published, "mergekit": mergekit}


def measure(side: str, base: Path, tuned: Path, out: Path, alpha: float) -> dict[str, Any]:
    """Seconds, peak memory beyond what the interpreter and its imports hold, and bytes written."""
    out.mkdir(parents=True)
    work = SIDES[side](base, tuned, out, alpha)
    before, peak = _resident()
    began = time.perf_counter(), time.process_time()
    work()
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds, busy = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "seconds": seconds, "cpu_seconds": busy, "peak_bytes": max(0, peak() - before), "interpreter_bytes": before,
        "written_bytes": sum(path.stat().st_size for path in files),
    }  # fmt: skip


def _resident() -> tuple[int, Callable[[], int]]:
    """Resident bytes now, and a function that gives their peak from now on (Linux; elsewhere since the start)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def read(key: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024

    try:
        reset.write_text("5")
        return read("VmRSS"), lambda: read("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return now, lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    name, *folders, share = sys.argv[1:]
    parent, child, target = map(Path, folders)
    result = measure(name, parent, child, target, float(share))
    print(json.dumps(result), flush=True)
