"""`speechft demo`: corpus, stage 1 (regular and stable), merging, SUPERB's PR, SID and KS, a table, a plot."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from speechft.console import progress, say
from speechft.demo import jobs
from speechft.files import write_json, write_text
from speechft.runs import runs_root
from speechft.versions import versions

SEEDS = 2
STRATEGIES = ("regular", "stable")
ALPHAS = {"regular": (0.25, 1.0), "stable": (0.25, 0.5, 1.0)}
TASKS = ("pr", "sid", "ks")
PRETRAINED = "pre-trained"


def run_demo(out: str | Path | None = None, seed: int = 0, workers: int | None = None) -> dict[str, Any]:
    """The whole method on the embedded upstream and the synthetic corpus, offline.

    Args:
        out: the folder; the same folder goes on where an interrupted demo stopped.
        seed: the first of the seeds; there are always two, and both are shown.
        workers: processes side by side; one thread each.

    Returns:
        What `report.json` holds.
    """
    began = time.monotonic()
    folder = Path(out).expanduser().resolve() if out else runs_root() / f"demo-{seed}"
    workers = workers or max(1, min(4, os.cpu_count() or 1))
    seeds = list(range(seed, seed + SEEDS))
    timing: dict[str, float] = {}

    mark = time.monotonic()
    _make_corpus()
    timing["corpus"], mark = time.monotonic() - mark, time.monotonic()

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=jobs.start_worker) as pool:
        trainings = [(folder / f"{strategy}-{one}", strategy, one) for one in seeds for strategy in STRATEGIES]
        _all(
            "fine-tuning and merging",
            pool,
            jobs.train_and_merge,
            [(str(run), strategy, one, ALPHAS[strategy]) for run, strategy, one in trainings],
        )
        timing["training"], mark = time.monotonic() - mark, time.monotonic()

        wanted: list[tuple[str, str, int, str]] = []
        for one in seeds:
            wanted.append(("hubert_nano", f"{PRETRAINED}-{one}", one, str(folder / "superb")))
        for run, strategy, one in trainings:
            for alpha in ALPHAS[strategy]:
                model = run / "merged" / f"alpha-{alpha:g}"
                wanted.append((str(model), f"{strategy}-{alpha:g}-{one}", one, str(folder / "superb")))
        _all("SUPERB: PR, SID, KS of every model", pool, jobs.score, wanted)
        timing["superb"] = time.monotonic() - mark
    timing["all"] = time.monotonic() - began
    return _report(folder, seeds, timing)


def _make_corpus() -> None:
    from speechft.data.synthetic.corpus import make_corpus

    with progress("making the synthetic corpus", 1) as advance:
        state = {"total": 1}

        def show(done: int, total: int) -> None:
            state["total"] = total
            advance(done, f"of {total} utterances")

        make_corpus("demo", progress=show)


def _all(title: str, pool: ProcessPoolExecutor, work: Callable[..., Any], calls: Sequence[Iterable[Any]]) -> None:
    """Run all calls in the pool, telling what is done."""
    with progress(title, len(calls)) as advance:
        futures = {pool.submit(work, *call): call for call in calls}
        for done, future in enumerate(as_completed(futures), 1):
            note = future.result()
            advance(done, str(note))
            say(f"  {note}")


def _report(folder: Path, seeds: list[int], timing: dict[str, float]) -> dict[str, Any]:
    from speechft.report.collect import Score, read_scores
    from speechft.report.plot import plot_alpha
    from speechft.report.table import markdown, summarise

    def row(name: str) -> dict[str, list[Score]]:
        found = [read_scores(folder / "superb" / f"{name}-{one}") for one in seeds]
        return {task: [scores[task] for scores in found] for task in TASKS}

    pretrained = row(PRETRAINED)
    merged = {(strategy, alpha): row(f"{strategy}-{alpha:g}") for strategy in STRATEGIES for alpha in ALPHAS[strategy]}
    rows = {
        PRETRAINED: pretrained,
        "regular fine-tuning (α = 1)": merged["regular", 1.0],
        "Speech-FT (stable, α = 0.25)": merged["stable", 0.25],
    }
    others = {
        f"{strategy}, α = {alpha:g}": merged[strategy, alpha]
        for strategy, alpha in merged
        if (strategy, alpha) not in (("regular", 1.0), ("stable", 0.25))
    }
    cells = summarise({**rows, **others})
    main = [cell for cell in cells if cell["model"] in rows]
    curves = {
        task: {
            strategy: {
                0.0: [score.value for score in pretrained[task]],
                **{alpha: [score.value for score in merged[strategy, alpha][task]] for alpha in ALPHAS[strategy]},
            }
            for strategy in STRATEGIES
        }
        for task in TASKS
    }
    picture = plot_alpha(
        curves, folder / "alpha.png", "hubert_nano fine-tuned on PR, merged with weight α, frozen, probed"
    )
    result = {
        "table": main,
        "all": cells,
        "curves": curves,
        "seeds": seeds,
        "seconds": timing,
        "versions": versions(),
        "upstream": pretrained["pr"][0].record["upstream"],
        "plot": str(picture),
    }
    write_json(folder / "report.json", result)
    text = _TEXT.format(
        table=markdown(main),
        all=markdown(cells),
        seeds=", ".join(map(str, seeds)),
        counts=", ".join(f"{c['task'].upper()} {c['test_utterances']}" for c in main if c["model"] == PRETRAINED),
        seconds=timing["all"],
        reading=_reading(main),
    )
    write_text(folder / "report.md", text)
    return {**result, "folder": str(folder), "markdown": markdown(main), "reading": _reading(main)}


def _reading(cells: list[dict[str, Any]]) -> str:
    """What the table says, from its intervals alone."""
    sentences = []
    for cell in cells:
        if "difference" not in cell:
            continue
        low, high = cell["difference"]["low"], cell["difference"]["high"]
        if not cell["higher_better"]:
            low, high = -high, -low
        verdict = "better" if low > 0 else "worse" if high < 0 else "not clearly different"
        sentences.append(f"{cell['model']}: {cell['task'].upper()} {verdict}")
    return "; ".join(sentences) + "."


_TEXT = """# speechft demo

`hubert_nano` fine-tuned on phone recognition of the synthetic corpus, then frozen and probed by s3prl's SUPERB experts
on speakers that neither its pre-training nor its fine-tuning has heard. Seeds {seeds}; test utterances: {counts}.

{table}
± is half the range over the seeds. In brackets: the difference to the pre-trained row, with its 95 % interval from a
paired bootstrap over the test utterances. Read against the pre-trained row, from these intervals alone: {reading}

![scores against α](alpha.png)

All models:

{all}
Made in {seconds:.0f} s by `speechft demo`. Everything that was measured is in `report.json`; a run's folder beside this
file holds its configuration and its weights.
"""
