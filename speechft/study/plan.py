"""What the study compares, and how large it is. Tests run a smaller plan through the same code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PRETRAINED = "pretrained"
SCENARIOS = ("pr", "sid")
STRATEGIES = ("regular", "stable", "l2", "lora", "dora", "early")
"""All that the page can show, in its order."""
USUAL = tuple(name for name in STRATEGIES if name != "dora")
"""What a study takes unless told: DoRA is beside LoRA where it is asked for."""

CURVE = (0.25, 0.5, 1.0)
ENDS = (0.25, 1.0)


@dataclass(frozen=True)
class Sizes:
    """How much of each corpus a probe uses. Training parts are drawn anew for each seed; test parts never change.

    Attributes:
        pr: utterances a speaker: train, dev, test (speakers apart).
        pr_seconds: longer utterances are left out.
        sid_speakers, sid, sid_seconds: speakers; pieces of each: train, dev, test; their length.
        digits: recordings of each digit a speaker: train, dev, test (speakers apart).
        asv: pieces of two seconds of each training speaker; trials of each kind for each test utterance.
    """

    pr: tuple[int, int, int] = (6, 6, 12)
    pr_seconds: float = 6.0
    sid_speakers: int = 120
    sid: tuple[int, int, int] = (3, 1, 4)
    sid_seconds: float = 1.5
    digits: tuple[int, int, int] = (10, 15, 25)
    asv: tuple[int, int] = (4, 5)


@dataclass(frozen=True)
class Piece:
    """One piece of the study: an upstream fine-tuned in one way with one seed, merged, and all its models scored."""

    upstream: str
    scenario: str
    strategy: str
    seed: int

    @property
    def name(self) -> str:
        middle = "" if self.strategy == PRETRAINED else f"{self.scenario}-"
        return f"{self.upstream}-{middle}{self.strategy}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The whole study.

    Attributes:
        upstreams: name -> what `upstream=` takes.
        seeds: each draws the heads, the order of the data, and the probes' training parts.
        rates: (upstream's name or "", scenario) -> learning rate of fine-tuning; "" is every other upstream's.
        steps: upstream's name or "" -> optimiser steps of fine-tuning.
        faster: strategies whose rate is so many times as high.
        train: overrides of every fine-tuning, and of each scenario's.
        alphas: what each strategy's result is merged with; 1 is the fine-tuned model itself.
        chosen: strategies for whose results `merge --alpha auto` chooses an α, too.
        probes: overrides of the evaluation, and of each probe.
        heads: (upstream's name or "", task of SUPERB) -> learning rates searched for a probe's head, the same for all
            models of an upstream. On Whisper's features PR's head mostly does not begin to learn at 1e-2.
        extra: probes that cost most, of these models alone: strategy -> α (0 is the pre-trained upstream).
        device: of training and probes: `auto`, `cpu`, `cuda`.
        head_steps: so many times as long the probes' heads are trained.
    """

    upstreams: Mapping[str, str]
    scenarios: tuple[str, ...] = SCENARIOS
    strategies: tuple[str, ...] = USUAL
    seeds: tuple[int, ...] = (0, 1, 2)
    sizes: Sizes = field(default_factory=Sizes)
    rates: Mapping[tuple[str, str], float] = field(
        default_factory=lambda: {
            ("hubert_nano", "pr"): 1e-3, ("hubert_nano", "sid"): 1e-3, ("", "pr"): 5e-5, ("", "sid"): 5e-5,
        }
    )  # fmt: skip
    steps: Mapping[str, int] = field(default_factory=lambda: {"hubert_nano": 400, "": 300})
    faster: Mapping[str, float] = field(default_factory=lambda: {"lora": 5.0, "dora": 5.0})
    train: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "": ("trainer.checkpoint_every=100", "trainer.log_every=20", "data.batch_size=8",
                 "data.workers=0", "trainer.threads=1"),
            "pr": ("task.head_lr=5e-3", "data.train_speakers=[0.0,0.45]", "data.dev_speakers=[0.45,0.5]"),
            "sid": ("task.head_lr=5e-3", "task.crop_seconds=2.0", "data.train_speakers=[0.0,0.5]",
                    "data.dev_speakers=[0.0,0.5]", "data.train_where={split: train}", "data.dev_where={split: dev}"),
        }
    )  # fmt: skip
    alphas: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "regular": CURVE, "stable": CURVE, "l2": ENDS, "lora": ENDS, "dora": ENDS, "early": ENDS,
        }
    )  # fmt: skip
    chosen: tuple[str, ...] = ("stable",)
    probes: tuple[str, ...] = (
        "frames_dtype=float32", "budget_gb=8",
        "superb.pr.steps=400", "superb.pr.eval_step=100", "superb.pr.accumulate=1",
        "superb.sid.steps=600", "superb.sid.eval_step=100", "superb.sid.batch_size=32", "superb.sid.accumulate=1",
        "superb.sid.eval_batch_size=32",
        "superb.asv.steps=600", "superb.asv.eval_step=300", "superb.asv.accumulate=1", "superb.asv.min_seconds=0.5",
        "superb.asv.eval_batch_size=1", "superb.asv.project_dim=128",
    )  # fmt: skip
    heads: Mapping[tuple[str, str], tuple[float, ...]] = field(
        default_factory=lambda: {
            ("hubert_nano", "pr"): (5e-3, 1e-2), ("", "pr"): (2e-3, 5e-3),
            ("", "sid"): (3e-4, 1e-3, 3e-3, 1e-2), ("", "asv"): (1e-3, 3e-3),
        }
    )  # fmt: skip
    extra: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {PRETRAINED: (0.0,), "regular": (1.0,), "stable": (0.25,)}
    )

    device: str = "auto"
    head_steps: int = 1

    def training(self, scenario: str) -> list[str]:
        """Overrides of a fine-tuning, but for its upstream, data, rate and length."""
        return [*self.train.get("", ()), *self.train.get(scenario, ()), f"trainer.device={self.device}"]

    def probing(self, upstream: str) -> list[str]:
        """Overrides of the evaluation of an upstream's models."""
        searched = {
            task: self.heads.get((upstream, task), rates) for (name, task), rates in self.heads.items() if not name
        }
        found = [f"device={self.device}"]
        found += [f"superb.{task}.lr=[{','.join(f'{rate:g}' for rate in rates)}]" for task, rates in searched.items()]
        for word in self.probes:
            key, _, value = word.partition("=")
            longer = key.endswith((".steps", ".eval_step"))
            found.append(f"{key}={self.head_steps * int(value)}" if longer else word)
        return found

    def rate(self, upstream: str, scenario: str, strategy: str) -> float:
        """The learning rate of one fine-tuning."""
        known = self.rates.get((upstream, scenario), self.rates.get(("", scenario)))
        assert known is not None
        return known * self.faster.get(strategy, 1.0)

    def length(self, upstream: str) -> int:
        """The steps of a fine-tuning."""
        return self.steps.get(upstream, self.steps[""])

    def pieces(self) -> Iterator[Piece]:
        """All pieces, those that are read together close together."""
        for upstream in self.upstreams:
            for seed in self.seeds:
                yield Piece(upstream, "", PRETRAINED, seed)
        for upstream in self.upstreams:
            for scenario in self.scenarios:
                for seed in self.seeds:
                    for strategy in self.strategies:
                        yield Piece(upstream, scenario, strategy, seed)


PROBES = ("pr", "sid", "digits")
EXTRA = ("characters", "asv")
TITLES = {
    "pr": "PR, PER % ↓", "sid": "SID, accuracy % ↑", "digits": "digits, accuracy % ↑",
    "characters": "characters, CER % ↓", "asv": "ASV, EER % ↓",
}  # fmt: skip
TASK_OF = {"digits": "sid", "characters": "pr"}
"""Probes that go by another name in SUPERB: digits are told apart by SID's head, a digit for a speaker; characters,
which ASR is trained on, are recognised by PR's linear head, since ASR's recurrent one learns nothing from some hundred
sentences (Whisper tiny: WER 99.9 % after 600 steps)."""

TRAINED = {"pr": ("pr", "characters"), "sid": ("sid", "asv")}
"""What each fine-tuning trains, and its nearest kin: the other probes tell what it costs."""
CLAIMED = ("stable", 0.25)
"""Speech-FT, as the paper has it."""


def label(strategy: str, alpha: float) -> str:
    """A row's name in tables."""
    return f"{strategy}, α = {alpha:g}"
