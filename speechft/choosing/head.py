"""The fine-tuning task heard on another upstream: the run's own head, its own dev set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet

from speechft.checkpoints.hashing import weights_sha256
from speechft.console import progress
from speechft.data.joint import data_section, stream
from speechft.data.loader import in_order
from speechft.errors import SpeechFTError, UsageError
from speechft.files import sha256_json
from speechft.runs import Run
from speechft.tasks.build import build_task
from speechft.train.check import read_corpus
from speechft.train.metrics import read_metrics
from speechft.train.schedule import Schedule
from speechft.train.state import load_head, newest, of_step
from speechft.upstreams.base import Upstream


class TrainedHead:
    """The head that a run ended with, and the run's task and data around it.

    The head was trained on θ'. On a merged upstream's features it is a stranger, the more the smaller α, so its score
    there says less about what the features hold than about how far they have moved. `refit` steps of training with the
    upstream frozen, from the run's head and on the same batches for every upstream, take most of that away.

    Args:
        run: a finished run.
        config: its configuration.
        upstream: any of the run's architecture, for its sizes.
        device: where to compute.

    Raises:
        UsageError: the run has no dev set.
        SpeechFTError: no checkpoint is left, or the labels are no longer those of the run.
    """

    def __init__(self, run: Run, config: Mapping[str, Any], upstream: Upstream, device: torch.device) -> None:
        data, trainer = config["data"], config["trainer"]
        if not data_section(config).get("dev"):
            raise UsageError(
                f"{run.folder} has no dev set to score on",
                "give one with --score-with data.dev=[...], or use --score superb",
            )
        checkpoint = _of_result(run)
        if checkpoint is None:
            raise SpeechFTError(f"{run.folder} has no checkpoint left, so no head", "use --score superb")
        self.device, self._seed = device, int(config["seed"])
        self.task = build_task(config["task"])
        corpus = read_corpus(config, self.task, upstream)  # what training left out is left out here
        assert corpus.dev is not None
        self._train, self.dev = corpus.train, corpus.dev
        self.task.prepare(upstream, self._train, self.dev, run.folder)
        self._head, settings = load_head(checkpoint)
        if settings != self.task.settings():
            raise SpeechFTError(
                f"the labels of {run.folder}'s data are not those that its head was trained on",
                "bring the old data back, or use --score superb",
            )
        self.task.to(device)
        head_lr = config["task"].get("head_lr")
        self._lr = float(trainer["lr"] if head_lr is None else head_lr)
        self._trainer, self._data, self._batches = trainer, data, stream(config["task"])

    def identity(self, refit: int) -> dict[str, Any]:
        """What a score depends on besides the upstream and `refit`: the head, the data, how the head is trained."""
        data = {key: self._data[key] for key in ("batch_seconds", "batch_size", "buckets")}
        trainer = {key: self._trainer[key] for key in ("warmup", "hold", "clip")}
        training = [_listed(self._train), data, self._lr, self._seed, trainer]
        return {
            "task": self.task.name, "head": weights_sha256(self._head), "dev": sha256_json(_listed(self.dev)),
            "training": sha256_json(training) if refit else None,
        }  # fmt: skip

    def score(self, upstream: Upstream, refit: int = 0, label: str = "") -> dict[str, float]:
        """The task's metrics on the dev set; the arguments are those of `scores`."""
        return self.task.summary(self.scores(upstream, refit, label))

    def scores(self, upstream: Upstream, refit: int = 0, label: str = "") -> list[Any]:
        """What the task's `summary` makes its metrics of, for the whole dev set, in the same order for every upstream.

        Args:
            upstream: on any device; not changed.
            refit: steps of training of the head first.
            label: of the progress bar.
        """
        upstream = upstream.to(self.device).eval().requires_grad_(False)
        self.task.load_state_dict(self._head, strict=True)
        if refit:
            self._refit(upstream, refit, label)
        self.task.eval()
        with torch.no_grad():
            return self.task.scores(upstream, (batch.to(self.device) for batch in in_order(self.dev, 120.0)))

    def _refit(self, upstream: Upstream, steps: int, label: str) -> None:
        data, trainer = self._data, self._trainer
        batches = self._batches(
            self._train, data["batch_seconds"], data["batch_size"], int(data["buckets"]), self._seed,
            workers=int(data["workers"]),
        )  # fmt: skip
        schedule = Schedule(steps, float(trainer["warmup"]), float(trainer["hold"]))
        optimizer = torch.optim.Adam(self.task.parameters(), lr=self._lr)
        self.task.train()
        heard = iter(batches)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), progress(f"head {label}".strip(), steps) as advance:
            torch.manual_seed(self._seed)  # dropout and masks: the same for every upstream
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = self._lr * schedule.factor(step)
                loss, _ = self.task.step(upstream, next(heard).to(self.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.task.parameters(), float(trainer["clip"]))
                optimizer.step()
                advance(step + 1, f"loss {float(loss.detach()):.3f}")


def _listed(cuts: CutSet) -> list[tuple[str, float]]:
    return sorted((cut.id, round(cut.duration, 4)) for cut in cuts)


def _of_result(run: Run) -> Path | None:
    """The checkpoint whose weights `finetuned/` has: not the newest where the best were asked for."""
    ends = [line["finetuned_step"] for line in read_metrics(run.metrics) if "finetuned_step" in line]
    chosen = of_step(run.checkpoints, ends[-1] if ends else None)
    return chosen if chosen.is_dir() else newest(run.checkpoints)
