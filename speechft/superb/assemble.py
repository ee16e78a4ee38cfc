"""Building what `--engine fast` trains, in the order in which s3prl's `Runner` builds it.

The order matters: with equal seeds both engines draw the same initial head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from speechft.files import sha256_json
from speechft.superb import state as saved
from speechft.superb.batches import FeatureSplit
from speechft.superb.bridge import HUB_NAME, Bridge
from speechft.superb.extract import Streamed, computer, data_identity, extract, plan
from speechft.superb.fast import FastRun
from speechft.superb.records import seed_all
from speechft.superb.reference import namespace
from speechft.superb.store import Features, FeatureStore, Key, Layout, check_budget, room
from speechft.superb.tasks.base import Split, Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.numerics import FLOAT32, Numerics

Bar = Callable[[str], Callable[[int, int], None]]
"""Label -> a function called with how much is done and how much there is."""


def no_bar(label: str) -> Callable[[int, int], None]:
    """A `Bar` that shows nothing."""
    del label
    return lambda done, total: None


def build_modules(
    task: Task, config: Mapping[str, Any], upstream: Upstream, expdir: Path, seed: int, device: torch.device
) -> tuple[Any, Any]:
    """s3prl's `Featurizer` and the task's `DownstreamExpert` as `Runner.__init__` makes them after seeding."""
    from s3prl.upstream.interfaces import Featurizer

    expdir.mkdir(parents=True, exist_ok=True)
    seed_all(seed)
    args = namespace(task, HUB_NAME, expdir, seed, str(device), None)
    featurizer = Featurizer(
        upstream=Bridge(upstream.to(device).eval()), feature_selection="hidden_states", upstream_device=str(device)
    ).to(device)
    module = import_module(f"s3prl.downstream.{task.folder}.expert")
    expert = module.DownstreamExpert(
        upstream_dim=featurizer.output_dim,
        upstream_rate=featurizer.downsample_rate,
        **copy.deepcopy(dict(config)),
        **vars(args),
    ).to(device)
    task.settle(expert)
    return featurizer, expert


def plan_splits(
    task: Task, expert: Any, upstream: Upstream, settings: Mapping[str, Any], data: Mapping[str, Any], dtype: str,
    numerics: Numerics = FLOAT32,
) -> dict[str, tuple[Split, Key, Layout]]:  # fmt: skip
    """Items, store key and size of each split."""
    plans = {}
    for name in task.splits:
        split = task.split(expert, name, int(settings["crops"]))
        identity = data_identity(task, split, settings, data)
        plans[name] = (split, *plan(task, split, upstream, identity, dtype, numerics))
    return plans


def _what_fits(
    task: Task, plans: Mapping[str, tuple[Split, Key, Layout]], store: FeatureStore, budget_gb: float,
    say: Callable[[str], None],
) -> set[str]:  # fmt: skip
    """The splits to be stored: the smallest first, as long as budget and disk allow.

    Raises:
        SpeechFTError: pooled features do not fit (they are small: computing them again at every step is no way out).
    """
    totals = {name: layout.total_bytes(key) for name, (_, key, layout) in plans.items()}
    missing = {name: store.missing_bytes(key, layout) for name, (_, key, layout) in plans.items()}
    if task.kind == "pooled":
        check_budget(store.root, sum(totals.values()), sum(missing.values()), budget_gb, task.name)
        return set(plans)
    budget, free = room(store.root, budget_gb)
    kept: set[str] = set()
    for name in sorted(plans, key=lambda name: totals[name]):
        if totals[name] <= budget and missing[name] <= free:
            kept.add(name)
            budget, free = budget - totals[name], free - missing[name]
    computed = [name for name in plans if name not in kept]
    if computed:
        size = sum(totals[name] for name in computed) / 1e9
        say(
            f"{task.name}: the features of {', '.join(computed)} would take {size:.2f} GB more than "
            f"budget_gb={budget_gb:g} or the disk allows; the upstream runs at every batch instead, once for all "
            "learning rates"
        )
    return kept


def assemble(
    task: Task,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    upstream: Upstream,
    store: FeatureStore,
    expdir: Path,
    *,
    seed: int,
    device: torch.device,
    frames_dtype: str,
    batch_seconds: float,
    budget_gb: float,
    bar: Bar = no_bar,
    say: Callable[[str], None] = lambda text: None,
    numerics: Numerics = FLOAT32,
) -> FastRun:
    """Everything up to the first step: modules, items, features. The random generators end as after `Runner.__init__`.

    Raises:
        SpeechFTError: over budget, unreadable files, a full disk.
    """
    config = task.config(settings, data, expdir)
    featurizer, expert = build_modules(task, config, upstream, expdir, seed, device)
    after_init = saved.random_state()
    plans = plan_splits(task, expert, upstream, settings, data, frames_dtype, numerics)
    stored = _what_fits(task, plans, store, budget_gb, say)
    splits = {}
    for name, (split, key, layout) in plans.items():
        label = bar(f"{task.name} features {name}")
        features: Features | Streamed
        if name in stored:
            features = extract(
                task, expert, split, upstream, store, key, layout, device, batch_seconds, label, say, numerics
            )
        else:
            compute = computer(task, expert, split, upstream, key.kind, device, batch_seconds, numerics)
            features = Streamed(compute, key, layout)
        splits[name] = FeatureSplit(task, expert, split, features, device)
    saved.set_random_state(after_init)
    run = FastRun(task, config, featurizer, expert, splits, seed, device, progress=bar(f"{task.name} head"))
    run.data = sha256_json([key.data for _, key, _ in plans.values()])
    return run
