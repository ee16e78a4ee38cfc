"""What a candidate is scored by, and a candidate's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from speechft.upstreams.base import Upstream

_INITIALS = ("per", "wer", "cer", "eer", "der", "uer", "mtwv")


@dataclass(frozen=True)
class Objective:
    """One score.

    Attributes:
        name: its key in every candidate's scores.
        higher_better: its direction.
        title: for people, with the unit.
        digits: after the point, when it is printed.
    """

    name: str
    higher_better: bool
    title: str
    digits: int = 2


@dataclass(frozen=True)
class Scored:
    """An upstream's scores.

    Attributes:
        alpha: weight of the fine-tuned side; 0 is the pre-trained upstream.
        sha256: hash of its weights.
        scores: objective's name -> value.
        details: whatever else was measured.
        seconds: it took, merging included.
        draws: objective's name -> its value on bootstrap draws of what it was measured on, the same draws for all
            upstreams; only those for which that is known.
    """

    alpha: float
    sha256: str
    scores: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    draws: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Scorer(Protocol):
    """A way of scoring upstreams.

    Attributes:
        name: on the command line.
        objectives: at least one; more than one makes a front.
        target: the place among them of what the upstream was fine-tuned for; None where that is not scored.
        identity: everything that scores depend on but the upstream; JSON-able.
        notes: what is to be said once the sweep is scored, a line each.
    """

    @property
    def name(self) -> str: ...
    @property
    def objectives(self) -> Sequence[Objective]: ...
    @property
    def target(self) -> int | None: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def notes(self) -> Sequence[str]: ...

    def score(self, alpha: float, upstream: Upstream) -> tuple[dict[str, float], dict[str, Any]]:
        """Scores by the objectives' names, and details worth keeping; those named `draws` become `Scored.draws`."""
        ...


def metric_title(metric: str) -> str:
    """A metric's name for people: `per` -> `PER`, `masked_accuracy` -> `masked accuracy`."""
    return metric.upper() if metric in _INITIALS else {"acc": "accuracy"}.get(metric, metric.replace("_", " "))


def turned(scores: Mapping[str, float], objectives: Sequence[Objective]) -> list[float]:
    """Scores in the order of the objectives, those of which less is better with the sign changed."""
    return [scores[one.name] if one.higher_better else -scores[one.name] for one in objectives]
