"""The demo's pieces of work, each run in a process of its own with one thread."""

from __future__ import annotations

import io
from pathlib import Path

from speechft.demo.plan import TASKS, Plan
from speechft.workers import muted


def train_and_merge(plan: Plan, run: str, strategy: str, seed: int) -> str:
    """Stage 1 and 2 of one strategy and seed; what is there already is left alone."""
    from speechft.merge.merge import merge_run
    from speechft.runs import Run
    from speechft.train.finetune import finetune

    words = ["experiment=demo", f"strategy={strategy}", f"seed={seed}", f"demo_size={plan.corpus}", *plan.train]
    with muted():
        done = finetune(words, run, latest=False)
        wanted = plan.alphas[strategy]
        missing = [alpha for alpha in wanted if not (done.merged / f"alpha-{alpha:g}" / "merge.json").is_file()]
        if missing:
            merge_run(Run(Path(run)), missing)
    return f"{strategy}, seed {seed}"


def score(plan: Plan, upstream: str, names: dict[int, str], out: str) -> str:
    """Stage 3 of one model, once a seed: `names` maps seeds, from which the heads start, to names of results."""
    from speechft.console import Progress
    from speechft.superb.evaluate import evaluate
    from speechft.superb.settings import compose

    notes = []
    for seed, name in names.items():
        settings = compose([f"data.synthetic={plan.corpus}", "device=cpu", *plan.superb, f"seed={seed}"])
        scores = evaluate({name: upstream}, list(TASKS), out=out, cfg=settings, progress=Progress(io.StringIO()))
        values = [f"{one['task'].upper()} {100 * one['metrics'][one['metric']]:.1f}" for one in scores]
        notes.append(f"{name}: {', '.join(values)}")
    return "; ".join(notes)
