"""`--engine fast`: s3prl's expert and layer weights, trained on stored features.

The loop is `Runner.train` of s3prl/downstream/runner.py with one difference: a batch's waveforms, upstream and weighted
sum are replaced by a look-up of stored features and the same weighted sum as one contraction. Which items form a batch,
and in which order, is drawn by the expert's own loader from the same random numbers.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from speechft.errors import SpeechFTError
from speechft.superb import state as saved
from speechft.superb.records import Scores, diverged, layer_weights, seed_all
from speechft.superb.store import Features
from speechft.superb.tasks.base import Split, Task

_RESIDENT_BYTES = 2 << 30  # pooled features up to this size are kept in memory, on the device


class Positions(Dataset):  # type: ignore[type-arg]
    """Elements are their own positions: shows what a sampler draws."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class _WeightedSum(torch.autograd.Function):
    """`weights [layers]`, `features [rows, layers, dim]` -> `[rows, dim]`; only the weights get a gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.matmul(weights, features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        # as a batch of matrix-vector products: einsum copies the features first and is several times slower
        return torch.bmm(features, grads[0].unsqueeze(-1)).sum(dim=0).squeeze(-1), None


class FeatureSplit:
    """A split as the expert sees it: batches of `(features, others)` instead of `(waveforms, others)`.

    Args:
        task, expert, split: where batches come from.
        features: stored features of the split's items.
        device: where the expert is.
    """

    def __init__(self, task: Task, expert: Any, split: Split, features: Features, device: torch.device) -> None:
        self.split = split
        self.device = device
        self.pooled = task.kind == "pooled"
        self.features = features
        self.loader = task.loader(expert, split.name)
        if len(self.loader) == 0:
            raise SpeechFTError(
                f"the {split.name} set of {task.name} has {len(split.items)} items, fewer than one batch",
                f"lower superb.{task.name}.batch_size",
            )
        self.batch = task.batches(expert, split, self.loader)
        self.table: Tensor | None = None
        if self.pooled and features.nbytes <= _RESIDENT_BYTES:
            rows, _ = features.gather(range(len(features)))
            self.table = torch.from_numpy(rows).to(device)

    def __len__(self) -> int:
        return len(self.loader)

    def draw(self) -> Iterator[list[int]]:
        """One epoch of index batches; takes from the random generators what iterating the expert's loader takes."""
        positions = Positions(len(self.loader.dataset))
        return iter(DataLoader(positions, batch_sampler=self.loader.batch_sampler, collate_fn=list, num_workers=0))

    def look_up(self, indices: Sequence[int]) -> tuple[Tensor, list[int], list[Any]]:
        """Stored rows `[rows, layers, dim]` float32 on the device, rows per utterance, and the batch's other parts."""
        numbers, others = self.batch(indices)
        if self.table is not None:
            return self.table[torch.tensor(numbers, device=self.device)], [1] * len(numbers), others
        rows, counts = self.features.gather(numbers)
        return torch.from_numpy(rows).to(self.device).float(), counts, others


def weigh(featurizer: Any, rows: Tensor, counts: list[int]) -> list[Tensor]:
    """Softmax-weighted sum over layers (s3prl's `Featurizer._weighted_sum`): a `[frames, dim]` tensor per utterance."""
    if hasattr(featurizer, "weights"):
        summed = _WeightedSum.apply(featurizer.weights.softmax(dim=-1), rows)
    else:
        summed = rows[:, 0]
    return list(summed.split(counts))


@dataclass
class Outcome:
    """What an evaluation ends with.

    Attributes:
        metrics: of the test set, as the expert logs them.
        dev: of the dev set at the best step, with `step`; empty if no dev score was ever a best one.
        records: the expert's records of the test set.
        weights: the learned layer weights.
        steps: optimizer steps taken.
    """

    metrics: dict[str, float]
    dev: dict[str, float]
    records: dict[str, list[Any]]
    weights: list[float]
    steps: int


@dataclass
class FastRun:
    """One task, one upstream.

    Args:
        task: what is evaluated.
        config: s3prl's configuration (`Task.config`).
        featurizer, expert: s3prl's modules, freshly initialised.
        splits: `train`, `dev`, `test`.
        seed: every evaluation is seeded with it, as s3prl does.
        device: where featurizer and expert are.
        state_file: where an interrupted run is kept, None for nowhere.
        fingerprint: a state of another configuration is not taken up.
        progress: called with steps done and in all.
        on_loss: called with step and loss of every micro-batch (tests).
        data: hash of all splits' data identities.
    """

    task: Task
    config: Mapping[str, Any]
    featurizer: Any
    expert: Any
    splits: Mapping[str, FeatureSplit]
    seed: int
    device: torch.device
    state_file: Path | None = None
    fingerprint: str = ""
    progress: Callable[[int, int], None] = lambda done, total: None
    on_loss: Callable[[int, float], None] | None = None
    data: str = ""

    step: int = 0
    epoch: int = 0
    micro_steps: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    dev: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules: list[nn.Module] = [self.featurizer, self.expert]
        self.parameters = [parameter for module in self.modules for parameter in module.parameters()]

    def train(self) -> None:
        """`Runner.train`, from the first step or from where the state file stopped."""
        from s3prl.optimizers import get_optimizer

        runner = self.config["runner"]
        total, accumulate = runner["total_steps"], runner["gradient_accumulate_steps"]
        for module in self.modules:
            module.train()
        self.optimizer = get_optimizer(self.modules, total, self.config["optimizer"])
        scores = Scores(self.task.name)
        records: dict[str, list[Any]] = defaultdict(list)
        resumed = self._resume(records)
        train = self.splits["train"]
        while self.step < total:
            epoch_start = saved.random_state()
            if resumed:
                epoch_start = resumed["epoch_start"]
                saved.set_random_state(epoch_start)
            batches = enumerate(train.draw())
            if resumed:  # draw what was drawn, without looking it up
                for _ in range(resumed["batches"]):
                    next(batches)
                saved.set_random_state(resumed["now"])
                resumed = None
            for number, indices in batches:
                if self.step >= total:
                    break
                step = self.step + 1
                loss = self._forward("train", train, indices, records)
                if self.on_loss is not None:
                    self.on_loss(step, float(loss))
                (loss / accumulate).backward()
                self.micro_steps += 1
                if self.micro_steps % accumulate:
                    continue
                norm = nn.utils.clip_grad_norm_(self.parameters, runner["gradient_clipping"])
                if not math.isnan(norm):
                    self.optimizer.step()
                elif math.isnan(float(loss)):
                    raise diverged(self.task.name, step)
                self.optimizer.zero_grad()
                if step % runner["log_step"] == 0:
                    self.expert.log_records("train", records=records, logger=scores, global_step=step)
                    records.clear()
                if step % runner["eval_step"] == 0:
                    self._dev(step)
                self.step = step
                if step % runner["eval_step"] == 0:
                    self._save(epoch_start, number + 1, records)
                self.progress(step, total)
            self.epoch += 1

    def _forward(self, name: str, split: FeatureSplit, indices: Sequence[int], records: dict[str, list[Any]]) -> Tensor:
        rows, counts, others = split.look_up(indices)
        loss = self.expert(name, weigh(self.featurizer, rows, counts), *others, records=records)
        assert isinstance(loss, Tensor)
        return loss

    def evaluate(self, name: str, step: int = 0) -> tuple[dict[str, float], dict[str, list[Any]], list[str]]:
        """`Runner.evaluate`: metrics of a split, its records, and the names under which s3prl would save."""
        seed_all(self.seed)
        for module in self.modules:
            module.eval()
        split, scores = self.splits[name], Scores(self.task.name)
        records: dict[str, list[Any]] = defaultdict(list)
        with torch.no_grad():
            for indices in split.draw():
                self._forward(name, split, indices, records)
        names = self.expert.log_records(name, records=records, logger=scores, global_step=step)
        for module in self.modules:
            module.train()
        return scores.of(name), records, list(names or [])

    def _dev(self, step: int) -> None:
        metrics, _, names = self.evaluate("dev", step)
        if "dev-best.ckpt" in names:
            self.best = {
                "featurizer": saved.on_cpu(self.featurizer.state_dict()),
                "expert": saved.on_cpu(self.expert.state_dict()),
            }
            self.dev = {**metrics, "step": step}

    def finish(self) -> Outcome:
        """The test set with the best dev state (the last one if no dev score was a best one, as with accuracy 0)."""
        if self.best:
            self.featurizer.load_state_dict(self.best["featurizer"])
            self.expert.load_state_dict(self.best["expert"])
        metrics, records, _ = self.evaluate("test", self.step)
        return Outcome(metrics, self.dev, dict(records), layer_weights(self.featurizer), self.step)

    # ---------------------------------------------------------------- an interrupted run

    def _save(self, epoch_start: dict[str, Any], batches: int, records: Mapping[str, list[Any]]) -> None:
        if self.state_file is None:
            return
        content = {
            "fingerprint": self.fingerprint, "step": self.step, "epoch": self.epoch, "micro_steps": self.micro_steps,
            "batches": batches, "epoch_start": epoch_start, "now": saved.random_state(),
            "featurizer": self.featurizer.state_dict(), "expert": self.expert.state_dict(),
            "optimizer": self.optimizer.state_dict(), "best": self.best, "dev": self.dev,
            "records": copy.deepcopy(dict(records)),
        }  # fmt: skip
        saved.write(self.state_file, content)

    def _resume(self, records: dict[str, list[Any]]) -> dict[str, Any] | None:
        content = saved.read(self.state_file, self.device) if self.state_file is not None else None
        if content is None or content["fingerprint"] != self.fingerprint:
            return None
        self.step, self.epoch, self.micro_steps = content["step"], content["epoch"], content["micro_steps"]
        self.best, self.dev = content["best"], content["dev"]
        self.featurizer.load_state_dict(content["featurizer"])
        self.expert.load_state_dict(content["expert"])
        self.optimizer.load_state_dict(content["optimizer"])
        records.update(content["records"])
        return content
