"""Training a task for some steps on a tiny corpus, without the loop: what several tests do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lhotse import CutSet

from speechft.data.corpora import load_cuts
from speechft.data.loader import Batches, in_order, take
from speechft.tasks.base import Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.load import load_upstream


def cuts_of(table: Path, split: str) -> CutSet:
    return load_cuts([{"kind": "tsv", "path": str(table), "where": {"split": split}}])[0]


def shuffled(cuts: CutSet) -> CutSet:
    """The same audio with the labels of other utterances: what is learned from it is worth nothing on a dev set."""
    order = torch.randperm(len(cuts), generator=torch.Generator().manual_seed(5)).tolist()
    cuts = list(cuts)
    said = [(cut.supervisions[0].speaker, cut.supervisions[0].text, cut.supervisions[0].custom) for cut in cuts]
    for cut, place in zip(cuts, order, strict=True):
        supervision = cut.supervisions[0]
        supervision.speaker, supervision.text, supervision.custom = said[place]
    return CutSet.from_cuts(cuts)


def measured(task: Task, upstream: Upstream, dev: CutSet) -> dict[str, float]:
    upstream.eval()
    task.eval()
    with torch.no_grad():
        return task.evaluate(upstream, in_order(dev, 60.0))


def learn(task: Task, train: CutSet, dev: CutSet, folder: Path, steps: int, lr: float = 5e-4, head_lr: float = 5e-3,
          source: str | Path = "hubert_nano", check: Callable[[Upstream], None] | None = None,
          ) -> tuple[dict[str, float], dict[str, float]]:  # fmt: skip
    """The dev metrics before and after so many steps of Adam on head and upstream (the CNN stays)."""
    torch.manual_seed(0)
    upstream = load_upstream(source)
    task.prepare(upstream, train, dev, folder)
    before = measured(task, upstream, dev)
    optimizer = torch.optim.Adam([{"params": list(task.parameters()), "lr": head_lr},
                                  {"params": list(upstream.parameters()), "lr": lr}])  # fmt: skip
    for parameter in upstream.parts()["cnn"]:
        parameter.requires_grad_(False)
    for number, batch in enumerate(take(Batches(train, None, 8, 1, 0), steps)):
        upstream.train()
        task.train()
        torch.manual_seed(number)
        loss, _ = task.step(upstream, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*upstream.parameters(), *task.parameters()], 1.0)
        optimizer.step()
    if check is not None:
        check(upstream)
    return before, measured(task, upstream, dev)
