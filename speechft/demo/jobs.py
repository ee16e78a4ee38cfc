"""The demo's pieces of work, each run in a process of its own with one thread."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

SUPERB = [
    "data.synthetic=demo",
    "device=cpu",
    "superb.pr.steps=300",
    "superb.pr.eval_step=100",
    "superb.pr.accumulate=1",
    "superb.pr.lr=5e-3",
    "superb.sid.steps=800",
    "superb.sid.eval_step=100",
    "superb.sid.batch_size=32",
    "superb.sid.accumulate=1",
    "superb.sid.lr=1e-2",
    "superb.sid.eval_batch_size=32",
    "superb.ks.steps=500",
    "superb.ks.eval_step=100",
    "superb.ks.lr=5e-3",
    "superb.ks.crops=20",
]
"""SUPERB's recipes, shortened to the corpus's size: fewer steps at a higher rate, the same for every model."""


def start_worker() -> None:
    """Settings of a worker before anything heavy is imported."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Only the parent speaks; what a failing job said comes with its error."""
    before, sys.stderr = sys.stderr, io.StringIO()
    try:
        yield
    finally:
        sys.stderr = before


def train_and_merge(run: str, strategy: str, seed: int, alphas: Sequence[float]) -> str:
    """Stage 1 and 2 of one strategy and seed."""
    from speechft.merge.merge import merge_run
    from speechft.runs import Run
    from speechft.train.finetune import finetune

    with _silent():
        done = finetune(["experiment=demo", f"strategy={strategy}", f"seed={seed}"], run, latest=False)
        missing = [alpha for alpha in alphas if not (done.merged / f"alpha-{alpha:g}" / "merge.json").is_file()]
        if missing:
            merge_run(Run(Path(run)), missing)
    return f"{strategy}, seed {seed}"


def score(upstream: str, name: str, seed: int, out: str) -> str:
    """Stage 3 of one model; the heads start from the seed too."""
    from speechft.superb.evaluate import evaluate
    from speechft.superb.progress import Progress
    from speechft.superb.settings import compose

    settings = compose([*SUPERB, f"seed={seed}"])
    scores = evaluate({name: upstream}, out=out, cfg=settings, progress=Progress(io.StringIO()))
    return f"{name}: " + ", ".join(f"{one['task'].upper()} {100 * one['metrics'][one['metric']]:.1f}" for one in scores)
