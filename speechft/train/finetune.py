"""Stage 1 from a configuration: build everything, train, write `finetuned/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.checkpoints.loading import how_to_load, library
from speechft.config.compose import compose, differences, read_config, write_config
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json, write_json
from speechft.runs import Run, set_latest
from speechft.train import devices
from speechft.train.options import check_dev, read_head_lr, read_seed, read_trainer
from speechft.train.place import owned, place
from speechft.train.sequence import going_on, origin, started_with, train_in_turn
from speechft.train.trackers import build_trackers
from speechft.versions import versions

if TYPE_CHECKING:
    from accelerate import Accelerator

    from speechft.strategies.base import Strategy
    from speechft.tasks.base import Task
    from speechft.upstreams.base import Identity, Upstream
    from speechft.upstreams.kept_cnn import KeptCnn


_SHOWN = 8
"""Differences of a configuration that are told."""
_MANY_PASSES = 1000
"""The paper's ASR hears its utterances some hundred times."""


def finetune(config: Mapping[str, Any] | Sequence[str] = (), out: str | Path | None = None, latest: bool = True) -> Run:
    """Fine-tune an upstream: what `speechft train` does.

    Args:
        config: a composed configuration, or Hydra overrides such as `["experiment=smoke", "trainer.lr=1e-4"]`.
        out: the run's folder; the same folder goes on where an interrupted run stopped. None: a dated one under
            `runs/`, or the newest of these where the same configuration was interrupted.
        latest: point `runs/latest` at this run.

    Returns:
        The run; its result is in `run.finetuned`.

    Raises:
        UsageError: an unknown override or an impossible setting.
        SpeechFTError: bad data, an interruption, a loss that stays non-finite.
    """
    settings = going_on(config if isinstance(config, Mapping) else compose("train", config), out)
    if "kind" in settings["upstream"]:  # a class of the user's own: from here on the folder that is made of it
        from speechft.upstreams.load import conventions

        settings["upstream"] = conventions(settings["upstream"])
    trainer, first = read_trainer(settings["trainer"]), devices.is_first()
    accelerator = devices.start(trainer) if devices.count() > 1 else None
    # One process chooses: each would take a dated folder of its own.
    with place(out, settings) if first else nullcontext((Path(), False)) as (folder, held):
        run = Run(Path(devices.agree(str(folder) if first else "")))
        changed = _check_unchanged(run, settings) if run.config.is_file() else []
        if run.finished:
            if first:
                without = ", and the changed configuration without effect" if changed else ""
                say(f"{run.folder} is finished; nothing to do{without}")
                if latest:
                    set_latest(run.folder)
            return run
        if settings["task"].get("kind") == "sequential":
            return train_in_turn(settings, run, latest, held)
        return _train(settings, run, trainer, accelerator, latest, held)


def _train(
    settings: Mapping[str, Any], run: Run, trainer: Mapping[str, Any], accelerator: Accelerator | None, latest: bool,
    held: bool,
) -> Run:  # fmt: skip
    """A run of one task, or of several at once, from wherever it stands to its end."""
    # Heavy imports only now: the configuration is sound.
    import torch

    from speechft.checkpoints.folder import write_folder
    from speechft.data.joint import data_section, stream
    from speechft.strategies.build import build_strategy
    from speechft.tasks.build import build_task
    from speechft.train.check import corpus_mark, must_train, read_corpus
    from speechft.train.loop import Training
    from speechft.train.optimizers import build_optimizer
    from speechft.train.schedule import Schedule
    from speechft.upstreams.load import load_upstream

    data, accelerator, first = data_section(settings), accelerator or devices.start(trainer), devices.is_first()
    seed = read_seed(settings["seed"])
    if trainer["threads"]:
        torch.set_num_threads(int(trainer["threads"]))
    strategy = build_strategy(settings["strategy"])
    upstream = load_upstream(settings["upstream"]).to(accelerator.device)  # a task may let it compute its targets
    must_train(upstream)
    strategy.check(upstream, int(trainer["steps"]))  # an impossible choice shows before the data is read

    with accelerator.main_process_first():  # what it makes and keeps in the cache, the others find there
        torch.manual_seed(seed)  # the head's first weights
        task = build_task(settings["task"])
        corpus = read_corpus(settings, task, upstream, loud=first)
        train, dev = corpus.train, corpus.dev
        check_dev(trainer, dev)
        task.prepare(upstream, train, dev, run.folder)

    head_lr = read_head_lr(settings["task"])
    batches = stream(settings["task"])(
        train, data["batch_seconds"], data["batch_size"], int(data["buckets"]), seed,
        accelerator.process_index, accelerator.num_processes, int(data["workers"]),
        pin=accelerator.device.type == "cuda", digests=bool(trainer["keep_cnn"]),
    )  # fmt: skip
    Schedule(int(trainer["steps"]), float(trainer["warmup"]), float(trainer["hold"]))
    build_optimizer(upstream, task, trainer, head_lr)  # the loop makes its own; here only mistakes show
    kept = _keep_cnn(upstream, strategy, trainer) if trainer["keep_cnn"] else None

    # Only now is there a run: a mistake up to here leaves no half-made one that would refuse the corrected command.
    with owned(run, held) if first else nullcontext():
        if first:
            _open(run, settings, upstream.identity)
            if latest:
                set_latest(run.folder)
            corpus.tell(run.folder)
            say(f"{run.folder}: {upstream.identity.name}; {strategy.name}")
            _tell_passes(len(train), data["batch_size"], trainer, accelerator.num_processes)
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
            corpora={"train": corpus_mark(train), "dev": corpus_mark(dev or ())},
            trackers=build_trackers(trainer["trackers"], run, settings) if first else (),
            overruled=bool(settings.get("allow_changed_config")),
            begun=partial(_begun, run, settings, task),
            kept=kept,
        )  # fmt: skip
        outcome = training.go()
        strategy.end(upstream)
        if first:
            weights = upstream.checkpoint()
            card = _card(run, settings, upstream.identity, weights.config.get("model_type"), outcome.chosen)
            write_folder(run.finetuned, weights, {"README.md": card})
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
    if not run.config.is_file():  # one that was changed on purpose is written once its checkpoint has been loaded
        write_config(run.config, settings)


def _tell_passes(utterances: int, batch_size: Any, trainer: Mapping[str, Any], processes: int) -> None:
    """The default steps are the paper's, for ten hours of speech; on a few minutes they are easily overlooked."""
    if batch_size is None:
        return
    passes = int(trainer["steps"]) * int(trainer["accumulate"]) * processes * int(batch_size) / max(1, utterances)
    if passes > _MANY_PASSES:
        say(f"{trainer['steps']} steps hear each of the {utterances} utterances {passes:.0f} times; trainer.steps=... "
            "makes it shorter")  # fmt: skip


def _begun(run: Run, settings: Mapping[str, Any], task: Task) -> None:
    """The run's files as it goes on, once nothing can refuse it any more."""
    write_config(run.config, settings)
    task.keep(run.folder)


def _check_unchanged(run: Run, settings: Mapping[str, Any]) -> list[str]:
    """What differs from the run's configuration, where that is allowed."""
    changed = differences(read_config(run.config), settings)
    if changed and not settings.get("allow_changed_config"):
        told = [one for one in changed if not one.startswith("name: ")] or changed  # the name follows from the others
        more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise UsageError(
            f"{run.folder} was started with another configuration: {'; '.join(told[:_SHOWN])}{more}",
            "choose another --out, or go on anyway with allow_changed_config=true",
        )
    return changed


def _keep_cnn(upstream: Upstream, strategy: Strategy, trainer: Mapping[str, Any]) -> KeptCnn:
    from speechft.upstreams.speech_encoder import SpeechEncoder

    total = int(trainer["steps"])
    if not isinstance(upstream, SpeechEncoder):
        raise UsageError(f"{upstream.identity.name} has no CNN to keep the output of", "leave trainer.keep_cnn out")
    frozen = {id(parameter) for parameter in strategy.frozen(upstream, total).values()}
    trains = any(id(parameter) not in frozen for parameter in upstream.parts()["cnn"])
    if trains and not strategy.adapter.kind:  # beside adapters nothing trains
        raise UsageError(
            f"strategy {strategy.name} trains the CNN, so its output cannot be kept", "leave trainer.keep_cnn out"
        )
    return upstream.keep_cnn(trainer["keep_cnn"], float(trainer["keep_cnn_gb"]))


def _card(run: Run, settings: Mapping[str, Any], identity: Identity, family: Any, last: int) -> str:
    total = int(settings["trainer"]["steps"])
    steps = f"{total}" if last == total else f"the first {last} of {total}"
    return f"""---
library_name: {library(family)}
tags: [speech, speechft]
---
# {run.folder.name}

Fine-tuned from `{identity.source}` (weights sha256 `{identity.sha256}`) with the strategy
`{settings["strategy"]["name"]}` on the task `{settings["task"]["name"]}`: {steps} steps, peak
learning rate {settings["trainer"]["lr"]}, seed {settings["seed"]}. The task's head is not part of it.

{how_to_load(family)}
This is θ' of Speech-FT (arXiv 2502.12672); stage 2 (`speechft merge`) interpolates it with its parent.
"""
