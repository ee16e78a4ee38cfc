"""The demo's pieces of work, each run in a process of its own with one thread."""

from __future__ import annotations

import io
from pathlib import Path

from speechft.demo.plan import Plan
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


def score(plan: Plan, task: str, seed: int, models: dict[str, str], out: str) -> str:
    """Stage 3, one task of several models (names of results -> upstreams); their heads start from `seed`."""
    from speechft.console import Progress
    from speechft.superb.evaluate import evaluate
    from speechft.superb.settings import compose

    settings = compose([f"data.synthetic={plan.corpus}", "device=cpu", *plan.superb, f"seed={seed}"])
    scores = evaluate(models, [task], out=out, cfg=settings, progress=Progress(io.StringIO()))
    values = [f"{name} {100 * one['metrics'][one['metric']]:.1f}" for name, one in zip(models, scores, strict=True)]
    return f"{task.upper()}: {', '.join(values)}"
