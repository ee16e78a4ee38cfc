"""Stage 1 from a configuration: build everything, train, write `finetuned/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.config.compose import compose, differences, read_config, write_config
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json, write_json, write_text
from speechft.runs import Run, choose_folder, set_latest
from speechft.train.sequence import going_on, origin, started_with, train_in_turn
from speechft.versions import versions

if TYPE_CHECKING:
    from speechft.upstreams.base import Identity


def finetune(config: Mapping[str, Any] | Sequence[str] = (), out: str | Path | None = None, latest: bool = True) -> Run:
    """Fine-tune an upstream: what `speechft train` does.

    Args:
        config: a composed configuration, or Hydra overrides such as `["experiment=smoke", "trainer.lr=1e-4"]`.
        out: the run's folder; the same folder goes on where an interrupted run stopped.
        latest: point `runs/latest` at this run.

    Returns:
        The run; its result is in `run.finetuned`.

    Raises:
        UsageError: an unknown override or an impossible setting.
        SpeechFTError: bad data, an interruption, a loss that stays non-finite.
    """
    settings = going_on(config if isinstance(config, Mapping) else compose("train", config))
    name = str(settings["name"])
    run = Run(choose_folder(str(out) if out else None, name))
    if run.finished:
        _check_unchanged(run, settings)
        say(f"{run.folder} is finished; nothing to do")
        if latest:
            set_latest(run.folder)
        return run
    if run.config.is_file():
        _check_unchanged(run, settings)
    if settings["task"].get("kind") == "sequential":
        return train_in_turn(settings, run, latest)

    _check_trainer(settings["trainer"])

    # Heavy imports only now: the configuration is sound.
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    from speechft.checkpoints.folder import write_folder
    from speechft.data.corpora import load_cuts
    from speechft.data.joint import data_section, stream
    from speechft.strategies.build import build_strategy
    from speechft.tasks.build import build_task
    from speechft.train.loop import Training
    from speechft.train.optimizers import build_optimizer
    from speechft.train.schedule import Schedule
    from speechft.upstreams.load import load_upstream

    trainer, data = settings["trainer"], data_section(settings)
    seed = int(settings["seed"])
    if trainer.get("threads"):
        torch.set_num_threads(int(trainer["threads"]))
    accelerator = Accelerator(
        mixed_precision=_precision(trainer["precision"]),
        cpu=trainer["device"] == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    strategy = build_strategy(settings["strategy"])
    upstream = load_upstream(settings["upstream"]).to(accelerator.device)  # a task may let it compute its targets
    if not upstream.trainable:
        raise UsageError(f"{upstream.identity.name} cannot be fine-tuned", "choose a pre-trained upstream")
    strategy.trainable_parts(upstream.parts(), 0, 1)  # an impossible choice shows before the data is read

    train, bad = load_cuts(data["train"], bool(data["skip_bad"]))
    dev, bad_dev = load_cuts(data["dev"], bool(data["skip_bad"])) if data.get("dev") else (None, [])
    torch.manual_seed(seed)  # the head's first weights
    task = build_task(settings["task"])
    task.prepare(upstream, train, dev, run.folder)

    head_lr = settings["task"].get("head_lr")
    head_lr = None if head_lr is None else float(head_lr)
    batches = stream(settings["task"])(
        train, data["batch_seconds"], data["batch_size"], int(data["buckets"]), seed,
        accelerator.process_index, accelerator.num_processes, int(data["workers"]),
    )  # fmt: skip
    Schedule(int(trainer["steps"]), float(trainer["warmup"]), float(trainer["hold"]))
    build_optimizer(upstream, task, trainer, head_lr)  # the loop makes its own; here only mistakes show

    # Only now is there a run: a mistake up to here leaves no half-made one that would refuse the corrected command.
    main = accelerator.is_main_process
    if main:
        _open(run, settings, upstream.identity)
        if latest:
            set_latest(run.folder)
        if bad or bad_dev:
            listed = "".join(f"{identifier}\t{reason}\n" for identifier, reason in [*bad, *bad_dev])
            write_text(run.folder / "skipped.tsv", listed)
            say(f"{len(bad) + len(bad_dev)} utterances skipped; they are listed in {run.folder / 'skipped.tsv'}")
        hours = sum(cut.duration for cut in train) / 3600
        say(f"{run.folder}: {len(train)} utterances, {hours:.2f} h; {upstream.identity.name}; {strategy.name}")
    accelerator.wait_for_everyone()

    training = Training(
        run=run,
        accelerator=accelerator,
        upstream=upstream,
        task=task,
        strategy=strategy,
        batches=batches,
        dev=dev,
        options=trainer,
        head_lr=head_lr,
        seed=seed,
        config_hash=sha256_json(settings),
    )  # fmt: skip
    training.go()
    if main:
        card = _card(run, settings, upstream.identity.as_dict())
        write_folder(run.finetuned, upstream.checkpoint(), {"README.md": card})
        say(f"fine-tuned upstream: {run.finetuned}")
    accelerator.wait_for_everyone()
    return run


def _open(run: Run, settings: Mapping[str, Any], identity: Identity) -> None:
    """Write the run's configuration and what it starts from; a resumed run must start from the same weights."""
    record = {
        **identity.as_dict(),
        "format": "native" if Path(identity.source).is_file() else "huggingface",
        "random_seed": settings["upstream"].get("random_seed"),
        "versions": versions(),
    }
    if run.pretrained.is_file():
        before = started_with(read_json(run.pretrained))
        if before != identity.sha256:
            raise SpeechFTError(
                f"{identity.source} has changed since {run.folder} was started (its weights hash differs)",
                "bring the old weights back, or choose another --out",
            )
    else:
        write_json(run.pretrained, origin(settings, record))
    write_config(run.config, settings)


_TRAINER = {
    "steps", "lr", "warmup", "hold", "optimizer", "betas", "eps", "weight_decay", "clip", "accumulate", "precision",
    "device", "threads", "log_every", "eval_every", "checkpoint_every", "keep", "patience_nan",
}  # fmt: skip


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in ("steps", "accumulate", "log_every", "eval_every", "checkpoint_every", "keep", "patience_nan"):
        if isinstance(trainer[key], bool) or not isinstance(trainer[key], int) or trainer[key] < 1:
            raise UsageError(f"trainer.{key} is {trainer[key]!r}", "give a whole number of at least 1")
    for key in ("lr", "warmup", "hold", "eps", "weight_decay", "clip"):
        if isinstance(trainer[key], bool) or not isinstance(trainer[key], (int, float)):
            raise UsageError(f"trainer.{key} is {trainer[key]!r}", "give a number, such as 1.0e-4")
        if trainer[key] < 0 or (key in ("lr", "clip") and trainer[key] == 0):
            raise UsageError(f"trainer.{key} is {trainer[key]}", "give a positive number")
    betas = trainer["betas"]
    if len(betas) != 2 or not all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas):
        raise UsageError(f"trainer.betas is {list(betas)}", "give two numbers from 0 to below 1")
    if _precision(trainer["precision"]) not in ("no", "bf16", "fp16"):
        raise UsageError(f"trainer.precision is {trainer['precision']!r}", "known: no, bf16, fp16")
    unknown = sorted(trainer.keys() - _TRAINER)
    if unknown:
        raise UsageError(
            f"unknown setting of the trainer: {', '.join(unknown)}", f"known: {', '.join(sorted(_TRAINER))}"
        )
    if trainer["device"] not in ("auto", "cpu"):
        raise UsageError(
            f"trainer.device is {trainer['device']!r}", "known: auto, cpu; choose a GPU by CUDA_VISIBLE_DEVICES"
        )


def _precision(value: Any) -> str:
    """`no`, `bf16` or `fp16`; YAML reads a bare `no` as false."""
    return "no" if value in (False, None, "no", "fp32") else str(value)


def _check_unchanged(run: Run, settings: Mapping[str, Any]) -> None:
    changed = differences(read_config(run.config), settings)
    if changed and not settings.get("allow_changed_config"):
        raise UsageError(
            f"{run.folder} was started with another configuration: {'; '.join(changed[:5])}",
            "choose another --out, or go on anyway with allow_changed_config=true",
        )


def _card(run: Run, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    return f"""---
library_name: transformers
tags: [speech, speechft]
---
# {run.folder.name}

Fine-tuned from `{identity["source"]}` (weights sha256 `{identity["sha256"]}`) with the strategy
`{settings["strategy"]["name"]}` on the task `{settings["task"]["name"]}`: {settings["trainer"]["steps"]} steps, peak
learning rate {settings["trainer"]["lr"]}, seed {settings["seed"]}. The task's head is not part of it.

This is θ' of Speech-FT (arXiv 2502.12672); stage 2 (`speechft merge`) interpolates it with its parent.
"""
