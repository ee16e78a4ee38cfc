"""Scores that cost minutes: how alike the features have stayed, and the fine-tuning task's dev metric."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from speechft.analysis.similarity import layer_similarity
from speechft.choosing.head import TrainedHead
from speechft.choosing.noise import redrawn
from speechft.choosing.objectives import Objective, metric_title
from speechft.console import progress
from speechft.data.loader import read_cut
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json
from speechft.runs import Run
from speechft.train.sequence import pretrained
from speechft.upstreams.base import Upstream
from speechft.upstreams.load import load_upstream

MEASURES = {"cka": "linear CKA", "cosine": "cosine"}
"""Of `analysis.similarity`, those of which more is more alike; each is averaged over the hidden states."""

REFIT = 100
"""Steps. hubert_nano after 300 steps of regular fine-tuning on the synthetic corpus, dev PER at α 0, 0.25, 0.5 and 1:
48.6, 36.5, 28.7, 22.6 with the run's head as it is; 34.1, 30.1, 26.2, 23.7 after 30 steps; 30.1, 26.8, 23.8, 21.8 after
100; 28.1 at 0 after 300. Without refitting, most of what α seems to buy is the head's acquaintance with θ'."""


class Drift:
    """Feature similarity to θ0, and the dev metric of a run's task with the run's head.

    Args:
        run: a finished run with a dev set.
        config: its configuration.
        measure: `cka` or `cosine`.
        minutes: of the dev set's audio, drawn at random, on which features are compared; the dev metric is always of
            the whole set.
        refit: steps of training of the head on each upstream, see `TrainedHead`; None is `REFIT`, or as many as the run
            had if they were fewer.
        device: where to compute.

    Raises:
        UsageError, SpeechFTError: as `TrainedHead`; a value out of range.
    """

    name = "drift"
    notes: Sequence[str] = ()

    def __init__(
        self, run: Run, config: Mapping[str, Any], measure: str = "cka", minutes: float = 10.0,
        refit: int | None = None, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        if measure not in MEASURES:
            raise UsageError(f"unknown measure of similarity {measure!r}", f"known: {', '.join(MEASURES)}")
        refit = min(REFIT, int(config["trainer"]["steps"])) if refit is None else refit
        if not minutes > 0 or refit < 0:
            wrong = f"--minutes {minutes:g}" if not minutes > 0 else f"--refit {refit}"
            raise UsageError(wrong, "give more than 0 minutes, and no steps below 0")
        self._pretrained = load_upstream(pretrained(config["upstream"], read_json(run.pretrained)))
        self._head = TrainedHead(run, config, self._pretrained, torch.device(device))
        self._measure, self._refit, self._device = measure, refit, device
        order = sorted(self._head.dev, key=lambda cut: cut.id)
        random.Random(int(config["seed"])).shuffle(order)
        total, self._heard = 0.0, []
        for cut in order:
            if total < 60 * minutes:
                self._heard.append(cut)
                total += cut.duration
        self._heard.sort(key=lambda cut: (-cut.duration, cut.id))
        self._seconds = total
        task = self._head.task
        self._metric = task.metric
        self.objectives = (
            Objective("similarity", True, f"similarity ({MEASURES[measure]})", 4),
            Objective(f"dev_{task.metric}", task.higher_is_better, f"dev {metric_title(task.metric)}"),
        )
        self.target = 1
        self.identity = {
            "score": self.name, "measure": measure, "refit": refit,
            "heard": sha256_json([(cut.id, cut.duration) for cut in self._heard]),
            **self._head.identity(refit),
        }  # fmt: skip

    def score(self, alpha: float, upstream: Upstream) -> tuple[dict[str, float], dict[str, Any]]:
        """Both scores; the similarity of every layer is among the details, and the metric on draws of the dev set.

        Raises:
            SpeechFTError: a layer that does not vary, or a metric that is not a number.
        """
        label = f"alpha {alpha:g}"
        with progress(f"features {label}", round(self._seconds)) as advance:
            layers = layer_similarity(
                self._pretrained, upstream, self._waves(), device=self._device,
                progress=lambda seconds: advance(round(seconds), "s"),
            )  # fmt: skip
        values = [layer[self._measure] for layer in layers]
        if any(value is None for value in values):
            raise SpeechFTError(f"features of {label} do not vary", "the weights of a model are broken")
        heard = self._head.scores(upstream, self._refit, label)
        metrics, name = self._head.task.summary(heard), f"dev_{self._metric}"
        drawn = redrawn(self._head.task.summary, heard, self._metric)
        scores = {"similarity": sum(values) / len(values), name: float(metrics[self._metric])}
        return scores, {"layers": layers, "dev": metrics, "draws": {} if drawn is None else {name: drawn}}

    def _waves(self) -> Iterator[Tensor]:
        return (read_cut(cut) for cut in self._heard)
