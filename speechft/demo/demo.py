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
from speechft.data.synthetic.corpus import make_corpus
from speechft.demo import jobs
from speechft.demo.plan import DEMO, TASKS, Plan
from speechft.errors import SpeechFTError
from speechft.files import claimed, write_json, write_text
from speechft.runs import runs_root
from speechft.versions import versions
from speechft.workers import start_worker

PRETRAINED = "pre-trained"


def run_demo(
    out: str | Path | None = None, seed: int = 0, plan: Plan = DEMO, workers: int | None = None
) -> dict[str, Any]:
    """The whole method on the embedded upstream and the synthetic corpus, offline.

    Args:
        out: the folder; the same folder goes on where an interrupted demo stopped.
        seed: the first of the plan's seeds.
        plan: sizes.
        workers: processes side by side, one thread each; None is one a CPU, at most four.

    Returns:
        What `report.json` holds, and the table as text.

    Raises:
        SpeechFTError: another process is at it in that folder.
    """
    folder = Path(out).expanduser().resolve() if out else runs_root() / f"demo-{seed}"
    with claimed(folder / ".demo") as ours:
        if not ours:
            raise SpeechFTError(f"a demo is running in {folder}", "wait for it, or choose another --out")
        return _run(folder, seed, plan, workers)


def _run(folder: Path, seed: int, plan: Plan, workers: int | None) -> dict[str, Any]:
    began = time.monotonic()
    went_on = (folder / "superb").is_dir() or any(folder.glob("*/config.yaml"))
    seeds = list(range(seed, seed + plan.seeds))
    timing: dict[str, float] = {}

    mark = time.monotonic()
    make_corpus(plan.corpus)
    timing["corpus"], mark = time.monotonic() - mark, time.monotonic()

    context = multiprocessing.get_context("spawn")
    workers = workers or max(1, min(4, os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, context, initializer=start_worker) as pool:
        trainings = [(folder / f"{strategy}-{one}", strategy, one) for one in seeds for strategy in plan.alphas]
        calls = [(plan, str(run), strategy, one) for run, strategy, one in trainings]
        _all("fine-tuning and merging", pool, jobs.train_and_merge, calls)
        timing["training"], mark = time.monotonic() - mark, time.monotonic()

        # One job for all models of a seed: what they share, the audio and the CNN, is read and run once. The features
        # of the pre-trained one are the same for all seeds, so its other heads come last and find them made.
        models: dict[int, dict[str, str]] = {one: {} for one in seeds}
        models[seeds[0]][f"{PRETRAINED}-{seeds[0]}"] = "hubert_nano"
        for run, strategy, one in trainings:
            for alpha in plan.alphas[strategy]:
                models[one][f"{strategy}-{alpha:g}-{one}"] = str(run / "merged" / f"alpha-{alpha:g}")
        rest = [(one, {f"{PRETRAINED}-{one}": "hubert_nano"}) for one in seeds[1:]]
        scoring = [
            (plan, task, one, own, str(folder / "superb"))
            for group in (models.items(), rest) for task in TASKS for one, own in group
        ]  # fmt: skip
        _all("SUPERB: PR, SID and KS of every model", pool, jobs.score, scoring)
        timing["superb"] = time.monotonic() - mark
    timing["all"] = time.monotonic() - began
    return write_report(folder, seeds, plan, timing, went_on)


def _all(title: str, pool: ProcessPoolExecutor, work: Callable[..., Any], calls: Sequence[Iterable[Any]]) -> None:
    """Run all calls in the pool, telling what is done."""
    with progress(title, len(calls)) as advance:
        futures = [pool.submit(work, *call) for call in calls]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                note = future.result()
                advance(done, "")
                say(f"  {note}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # an error is told now, not after all the others
            raise


def write_report(
    folder: Path, seeds: list[int], plan: Plan, timing: dict[str, float], went_on: bool = False
) -> dict[str, Any]:
    """`report.md`, `report.json` and `alpha.png` from the finished evaluations.

    Args:
        folder, seeds, plan: as of `run_demo`.
        timing: seconds of each part.
        went_on: whether some of it was there before, so that these seconds are not all that it took.
    """
    from speechft.report.collect import Score, read_scores
    from speechft.report.plot import plot_alpha
    from speechft.report.table import markdown, summarise

    def row(name: str) -> dict[str, list[Score]]:
        found = [read_scores(folder / "superb" / f"{name}-{one}") for one in seeds]
        return {task: [scores[task] for scores in found] for task in TASKS}

    merged = {
        (strategy, alpha): row(f"{strategy}-{alpha:g}") for strategy in plan.alphas for alpha in plan.alphas[strategy]
    }
    names = {("regular", 1.0): "regular fine-tuning (α = 1)", ("stable", 0.25): "Speech-FT (stable, α = 0.25)"}
    rows = {PRETRAINED: row(PRETRAINED), **{name: merged[key] for key, name in names.items()}}
    others = {f"{strategy}, α = {alpha:g}": merged[strategy, alpha] for strategy, alpha in merged
              if (strategy, alpha) not in names}  # fmt: skip
    cells = summarise({**rows, **others})
    main = [cell for cell in cells if cell["model"] in rows]
    curves: dict[str, dict[str, dict[float, list[float]]]] = {}
    for task in TASKS:
        start = [score.value for score in rows[PRETRAINED][task]]
        for strategy, alphas in plan.alphas.items():
            points = {alpha: [score.value for score in merged[strategy, alpha][task]] for alpha in alphas}
            curves.setdefault(task, {})[strategy] = {0.0: start, **points}
    title = "hubert_nano fine-tuned on PR, merged with weight α, frozen, probed"
    plot_alpha(curves, folder / "alpha.png", title)
    reading = read_intervals(main)
    result = {
        "table": main, "all": cells, "curves": curves, "seeds": seeds, "reading": reading, "seconds": timing,
        "went_on": went_on,
        "versions": versions(), "upstream": rows[PRETRAINED]["pr"][0].record["upstream"], "folder": str(folder),
    }  # fmt: skip
    write_json(folder / "report.json", result)
    counts = [f"{cell['task'].upper()} {cell['test_utterances']}" for cell in main if cell["model"] == PRETRAINED]
    text = _TEXT.format(
        table=markdown(main), all=markdown(cells), seeds=", ".join(map(str, seeds)), counts=", ".join(counts),
        seconds=f"{timing['all']:.0f} s" + (", going on with what was there," if went_on else ""), reading=reading,
    )  # fmt: skip
    write_text(folder / "report.md", text)
    return {**result, "markdown": markdown(main)}


def read_intervals(cells: list[dict[str, Any]]) -> str:
    """What the table says, from its intervals alone."""
    verdicts: dict[str, list[str]] = {}
    for cell in cells:
        if "difference" not in cell:
            continue
        low, high = cell["difference"]["low"], cell["difference"]["high"]
        if not cell["higher_better"]:
            low, high = -high, -low
        verdict = "better" if low > 0 else "worse" if high < 0 else "not clearly different"
        verdicts.setdefault(cell["model"], []).append(f"{cell['task'].upper()} {verdict}")
    return "; ".join(f"{model}: {', '.join(own)}" for model, own in verdicts.items()) + "."


_TEXT = """# speechft demo

`hubert_nano` fine-tuned on phone recognition of the synthetic corpus, then frozen and probed by s3prl's SUPERB experts
on speakers that neither its pre-training nor its fine-tuning has heard. Seeds {seeds}; test utterances: {counts}.

{table}
± is half the range over the seeds. In brackets: the difference to the pre-trained row, with its 95 % interval from a
paired bootstrap over the test utterances (not over seeds: what ± shows comes on top). Read against the pre-trained row,
from these intervals alone: {reading}

![scores against α](alpha.png)

All models:

{all}
Made in {seconds} by `speechft demo`. Everything that was measured is in `report.json`; a run's folder beside this
file holds its configuration and its weights.
"""
