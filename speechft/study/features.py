"""The paper's third claim: Speech-FT's features stay closer to the pre-trained ones though its weights move further."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from speechft.study.plan import CURVE, SCENARIOS, label
from speechft.study.results import Study

OURS = tuple(("stable", alpha) for alpha in CURVE)
BASELINES = (("l2", 1.0), ("lora", 1.0))
"""What the paper compares with; `early` is listed, too."""


def features(study: Study) -> str:
    """CKA at the size of the update: Speech-FT beside what keeps weights near θ0."""
    lines = ["| fine-tuned on | upstream | strategy, α | CKA to θ0 | ‖τ‖/‖θ0‖, % |", "|---|---|---|---|---|"]
    for scenario in SCENARIOS:
        for upstream in study.upstreams(scenario):
            for row in (*OURS, *BASELINES, ("early", 1.0)):
                models = study.at(upstream, scenario, row)
                if models:
                    cka = _spread([_mean_cka(model) for model in models], 4)
                    update = _spread([100 * model["update"] for model in models], 2)
                    lines.append(f"| {scenario.upper()} | {upstream} | {label(*row)} | {cka} | {update} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Not measured yet.\n"


def closer(study: Study) -> str:
    """Speech-FT's CKA less a baseline's, with a 95 % t-interval over the seeds that both have, and how many times as
    far its weights have moved."""
    titles = ("fine-tuned on", "upstream", "Speech-FT at", "beside", "CKA, difference", "update, times",
              "closer at a larger update")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for scenario in SCENARIOS:
        for upstream in study.upstreams(scenario):
            for baseline in BASELINES:
                for row in OURS:
                    ours, theirs = (study.models.get((upstream, scenario, *one), {}) for one in (row, baseline))
                    seeds = sorted(ours.keys() & theirs.keys())
                    if not seeds:
                        continue
                    changes = [_mean_cka(ours[seed]) - _mean_cka(theirs[seed]) for seed in seeds]
                    times = float(np.mean([ours[seed]["update"] / theirs[seed]["update"] for seed in seeds]))
                    low, high = t_interval(changes)
                    told = f"{np.mean(changes):+.3f}: " + (
                        "one seed" if len(seeds) == 1 else f"{low:+.3f} to {high:+.3f}"
                    )
                    cells = (scenario.upper(), upstream, label(*row), label(*baseline), told, f"{times:.2f}",
                             _verdict(low, high, times))  # fmt: skip
                    lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "Not measured yet.\n"


def t_interval(values: Iterable[float]) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; of one value it has no bounds."""
    values = np.array(list(values), dtype=np.float64)
    if len(values) < 2:
        return -math.inf, math.inf
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _verdict(low: float, high: float, times: float) -> str:
    if high < 0:
        return "no, further away"
    if low <= 0:
        return "not clear"
    return "**yes**" if times > 1 else "closer, at a smaller one"


def _mean_cka(model: Mapping[str, object]) -> float:
    return float(np.mean(np.asarray(model["cka"])))


def _spread(values: Iterable[float], digits: int) -> str:
    values = list(values)
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
