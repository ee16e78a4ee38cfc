"""How large the demo is. The command runs `DEMO`; tests run a smaller one through the same code."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """Sizes of a demo.

    Attributes:
        corpus: size of the synthetic corpus.
        seeds: how many; all are shown.
        alphas: what each strategy's result is merged with; 1 is the fine-tuned model itself.
        train: overrides on `experiment=demo`.
        superb: overrides on `configs/eval.yaml`: SUPERB's recipes shortened to the corpus's size, fewer steps at a
            higher rate, the same for every model. SID and KS take all or much of the training set at each step, and
            their last state: small batches, and a choice by a dev set of a hundred, moved scores by points from seed to
            seed of the head.
    """

    corpus: str = "demo"
    seeds: int = 2
    alphas: dict[str, tuple[float, ...]] = field(default_factory=lambda: {"regular": (1.0,), "stable": (0.25, 1.0)})
    train: tuple[str, ...] = ()
    superb: tuple[str, ...] = (
        "superb.pr.steps=200", "superb.pr.eval_step=100", "superb.pr.accumulate=1", "superb.pr.lr=7e-3",
        "superb.sid.steps=120", "superb.sid.eval_step=120", "superb.sid.batch_size=400", "superb.sid.accumulate=1",
        "superb.sid.lr=1e-2", "superb.sid.eval_batch_size=32",
        "superb.ks.steps=150", "superb.ks.eval_step=150", "superb.ks.batch_size=256", "superb.ks.lr=5e-3",
        "superb.ks.crops=20",
    )  # fmt: skip


DEMO = Plan()
TASKS = ("pr", "sid", "ks")
