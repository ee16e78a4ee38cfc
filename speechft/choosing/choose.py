"""The choice of α: score the sweep, find the front, choose by a rule, merge, and write down why."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechft.choosing import rules
from speechft.choosing.candidates import Candidates
from speechft.choosing.noise import chosen_shares, interval
from speechft.choosing.objectives import Scored, Scorer, turned
from speechft.choosing.pareto import Point, front
from speechft.choosing.picture import draw
from speechft.console import duration, say, silent
from speechft.errors import SpeechFTError, UsageError
from speechft.figures import checked_formats
from speechft.files import partial_name, read_json, sha256_json, write_json
from speechft.merge.alphas import checked_alphas
from speechft.sharing import shared_folder
from speechft.versions import versions

ALPHAS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The sweep, unless told: tenths, and the paper's 0.25."""

SCORES = ".scores"
"""Inside the folder of merged models: a file for each α that has been scored; and, while it is, the α's model."""


def choose(
    candidates: Candidates,
    scorer: Scorer,
    out: Path,
    alphas: Sequence[float] = ALPHAS,
    rule: str = "knee",
    lose: float = 0.01,
    extrapolate: bool = False,
    plots: Sequence[str] = ("png",),
) -> dict[str, Any]:
    """Choose α for parents and merge them with it.

    Args:
        candidates: what is merged.
        scorer: how each upstream is scored.
        out: where `alpha-A/` of the chosen α, `choice.json` and `choice.png` go (`choice-METHOD-HASH` of another merge
            than the plain linear one).
        alphas: the sweep; 0, the pre-trained upstream, is always in it.
        rule: `knee` or `budget`, see `rules`.
        lose: of the budget, a share.
        extrapolate: allow α outside [0, 1].
        plots: formats of the picture: `png`, `pdf`, `svg`.

    Returns:
        What `choice.json` holds.

    Raises:
        UsageError: unknown rule or format, α out of range, a negative budget, a merge that cannot be; before anything
            is scored.
        SpeechFTError: what merging and scoring raise; a score that is not finite.
    """
    if rule not in rules.RULES:
        raise UsageError(f"unknown rule {rule!r}", f"known: {', '.join(rules.RULES)}")
    if not (lose >= 0 and math.isfinite(lose)):
        raise UsageError(f"lose {100 * lose:g} %", "give a share of at least 0 %, such as 1%")
    sweep = checked(alphas, extrapolate)
    plots = checked_formats(plots)
    candidates.check(sweep, out)
    candidates = candidates.with_statistics(out)
    identity = {**candidates.identity, **scorer.identity}
    with shared_folder(out / SCORES):
        scored = [_score(candidates, scorer, alpha, out / SCORES, identity) for alpha in sweep]
    for note in scorer.notes:
        say(note)

    points = [turned(one.scores, scorer.objectives) for one in scored]
    base = sweep.index(0.0)

    def chosen_of(points: Sequence[Point]) -> rules.Pick:
        return rules.knee(points, base) if rule == "knee" else rules.budget(points, base, lose, scorer.target)

    pick = chosen_of(points)
    if pick.index == base:
        pick = rules.Pick(base, f"{pick.why}: nothing of the fine-tuning is kept")
    shares = chosen_shares(scored, scorer.objectives, lambda points: chosen_of(points).index)
    chosen = sweep[pick.index]
    folder = candidates.merge(chosen, out)
    made = read_json(folder / "merge.json")
    on_front = front(points)
    names = [one.name for one in scorer.objectives]
    choice = {
        "chosen": chosen,
        "folder": str(folder),
        "rule": {"name": rule, "means": rules.RULES[rule], **({"lose": lose} if rule == "budget" else {})},
        "why": pick.why,
        "reached": dict(zip(names, rules.reached(points, on_front, pick.index), strict=True)),
        "draws": 0 if shares is None else max(len(one) for one in scored[0].draws.values()),
        "objectives": [
            {"name": one.name, "title": one.title, "higher_better": one.higher_better, "digits": one.digits}
            for one in scorer.objectives
        ],
        "target": None if scorer.target is None else names[scorer.target],
        "candidates": [
            {
                **{key: value for key, value in one.as_dict().items() if key != "draws"},
                "on_front": place in on_front,
                "intervals": {name: interval(draws) for name, draws in one.draws.items()},
                "chosen_share": None if shares is None else shares[place],
                "relative_loss": dict(zip(names, rules.losses(points[place], points[base]), strict=True)),
            }
            for place, one in enumerate(scored)
        ],
        "merge": {key: made.get(key) for key in ("method", "parameters", "choices")},
        "front": [sweep[place] for place in on_front],
        "settings": identity,
        "versions": versions(),
    }
    stem = "-".join(["choice", *(candidates.variant or ())])  # a sweep of another method is kept beside it
    with shared_folder(out):  # or the merge of another sweep would clear away what is not finished
        write_json(out / f"{stem}.json", _finite(choice))
        draw(choice, out / stem, candidates.name, plots)
    return choice


def checked(alphas: Sequence[float], extrapolate: bool = False) -> list[float]:
    """A sweep in order, with 0 in it.

    Raises:
        UsageError: an α that is no number or out of range, or none but 0.
    """
    sweep = checked_alphas([*alphas, 0.0], extrapolate)
    if len(sweep) < 2:
        raise UsageError("there is no alpha to choose", "give several, such as --alphas 0.1 0.25 0.5")
    return sweep


def _score(
    candidates: Candidates, scorer: Scorer, alpha: float, folder: Path, identity: dict[str, Any]
) -> Scored:  # fmt: skip
    """An α's scores: those of an earlier sweep that was the same, or new ones."""
    file = folder / f"{sha256_json([identity, alpha])[:24]}.json"
    scored = _earlier(file)
    told = "scored before"
    if scored is None:
        began = time.monotonic()
        with silent(), candidates.at(alpha, folder / partial_name(Path("model"))) as upstream:
            sha256 = upstream.identity.sha256
            scores, details = scorer.score(alpha, upstream)
        for name, value in scores.items():
            if not math.isfinite(value):
                raise SpeechFTError(f"{name} of alpha {alpha:g} is {value}", "leave this alpha out of --alphas")
        draws = details.pop("draws", {})
        scored = Scored(alpha, sha256, scores, details, round(time.monotonic() - began, 3), draws)
        write_json(file, scored.as_dict())
        told = duration(scored.seconds)
    values = ", ".join(f"{one.title} {scored.scores[one.name]:.{one.digits}f}" for one in scorer.objectives)
    say(f"alpha {alpha:g}: {values} ({told})")
    return scored


def _earlier(file: Path) -> Scored | None:
    if not file.is_file():
        return None
    try:
        return Scored(**read_json(file))
    except (SpeechFTError, TypeError):
        return None  # damaged: scored again


def _finite(value: Any) -> Any:
    """JSON has no infinity: a loss relative to nothing becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
