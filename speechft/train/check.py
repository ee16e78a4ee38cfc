"""`speechft train --check`: look at the data as training would, and train nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.config.compose import compose
from speechft.data.problems import refusal, write_listing
from speechft.errors import SpeechFTError, UsageError
from speechft.files import cache_dir, sha256_json
from speechft.train.options import check_dev, read_head_lr, read_seed, read_trainer
from speechft.train.schedule import Schedule
from speechft.train.sequence import going_on, stage_of

if TYPE_CHECKING:
    from speechft.data.check import Corpus
    from speechft.tasks.base import Task
    from speechft.upstreams.base import Upstream


_SHOWN = 5
"""Utterances that are named, of those that are bad."""


def check(config: Mapping[str, Any] | Sequence[str] = (), out: str | Path | None = None) -> dict[str, Any]:
    """Read the corpora of a configuration, with the labels as its task and upstream see them; the settings of the
    training are checked first, so what passes here does not end in a queue.

    Args:
        config: a composed configuration, or Hydra overrides.
        out: a folder for the list of what is bad; otherwise it goes to the cache folder.

    Returns:
        `splits` (figures of each), `bad` (how many of each kind), `listing` (the file, or None), `lines` for people.
        Of a sequence of tasks: `parts`, which has these of each by its name, and `bad` and `lines` of all.

    Raises:
        UsageError: an unknown override or an impossible setting.
        SpeechFTError: corpora are missing, or nothing in them can be used.
    """
    settings = going_on(config if isinstance(config, Mapping) else compose("train", config))

    if settings["task"].get("kind") == "sequential":
        return _check_in_turn(settings, out)
    trainer, seed = _check_options(settings)

    from speechft.data.check import load_corpus
    from speechft.data.joint import data_section, stream
    from speechft.strategies.build import build_strategy
    from speechft.tasks.build import build_task
    from speechft.upstreams.load import load_upstream

    strategy, task = build_strategy(settings["strategy"]), build_task(settings["task"])
    upstream = load_upstream(settings["upstream"])
    must_train(upstream)
    strategy.check(upstream, int(trainer["steps"]))
    path = listing_path(settings, out)
    section = data_section(settings)
    corpus = load_corpus(section, lambda cuts: task.check(upstream, cuts), listing=path, check_splits=task.check_splits)
    check_dev(trainer, corpus.dev)
    stream(settings["task"])(
        corpus.train, section["batch_seconds"], section["batch_size"], int(section["buckets"]), seed, 0, 1, 0
    )
    lines = corpus.lines(task.describe(list(corpus.train)))
    listing = write_listing(path, corpus.problems) if corpus.problems else None
    if listing is not None:
        lines[-1] += f", listed in {listing}"
        shown = corpus.problems if len(corpus.problems) <= _SHOWN + 1 else corpus.problems[:_SHOWN]
        lines += [f"  {one.split} {one.id}: {one.reason}" for one in shown]
        if len(shown) < len(corpus.problems):
            lines.append(f"  and {len(corpus.problems) - len(shown)} more")
    else:
        lines.append("bad: none")
    bad = dict(Counter(problem.kind for problem in corpus.problems))
    return {"splits": corpus.summary, "bad": bad, "listing": listing and str(listing), "lines": lines}


def _check_options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """What needs neither data nor upstream; the trainer's options, and the seed."""
    trainer, seed = read_trainer(settings["trainer"]), read_seed(settings["seed"])
    read_head_lr(settings["task"])
    Schedule(int(trainer["steps"]), float(trainer["warmup"]), float(trainer["hold"]))
    return trainer, seed


@contextlib.contextmanager
def _of_part(name: str) -> Iterator[None]:
    """Errors say which part of a sequence they are of."""
    try:
        yield
    except SpeechFTError as error:
        raise error.of(f"task.tasks.{name}") from error


def _check_in_turn(settings: Mapping[str, Any], out: str | Path | None) -> dict[str, Any]:
    """As `check`, for a sequence: each part as it will be trained, though from θ0's weights."""
    from speechft.data.joint import read_parts

    bad: Counter[str] = Counter()
    lines, found = [], {}
    parts = read_parts(settings["task"].get("tasks"), ("trainer",))
    stages = {name: stage_of(settings, part, settings.get("after")) for name, part in parts.items()}
    for name, stage in stages.items():  # before any data is read
        with _of_part(name):
            _check_options(stage)
    for number, (name, stage) in enumerate(stages.items(), 1):
        with _of_part(name):
            found[name] = one = check(stage, None if out is None else Path(out) / f"{number}-{name}")
        lines += [f"{number}-{name}:", *(f"  {line}" for line in one.pop("lines"))]
        bad.update(one["bad"])
    return {"parts": found, "bad": dict(bad), "lines": lines}


def must_train(upstream: Upstream) -> None:
    """Raises: UsageError: it has nothing that could be fine-tuned, as log-mels."""
    if not upstream.trainable:
        raise UsageError(f"{upstream.identity.name} cannot be fine-tuned", "choose a pre-trained upstream")


def read_corpus(settings: Mapping[str, Any], task: Task, upstream: Upstream, loud: bool = True) -> Corpus:
    """What `settings` train on. Unless `data.skip_bad` is set, all must be good.

    Args:
        settings: a composed configuration.
        task, upstream: judge the labels; neither is prepared yet.
        loud: show progress.

    Raises:
        UsageError, SpeechFTError: as `data.check.load_corpus`; or something is bad, all of which is then listed.
    """
    from speechft.data.check import load_corpus
    from speechft.data.joint import data_section

    path = listing_path(settings)
    section = data_section(settings)
    corpus = load_corpus(section, lambda cuts: task.check(upstream, cuts), loud, path, task.check_splits)
    if corpus.problems and not settings["data"]["skip_bad"]:
        raise refusal(corpus.problems, write_listing(path, corpus.problems))
    return corpus


def corpus_mark(cuts: Iterable[Any]) -> dict[str, Any]:
    """What a set's utterances are known by again: `sha256` of their ids, lengths and labels, in order; their
    number."""
    digest, count = hashlib.sha256(), 0
    for cut in cuts:
        count += 1
        (label,) = cut.supervisions[:1] or (None,)
        own = [] if label is None else [label.text, label.speaker, label.custom]
        digest.update(json.dumps([cut.id, round(cut.duration, 4), *own], sort_keys=True, default=str).encode())
    return {"sha256": digest.hexdigest(), "utterances": count}


def listing_path(settings: Mapping[str, Any], out: str | Path | None = None) -> Path:
    """Where what is bad is listed when nothing is trained: in `out`, or in the cache folder by what was looked at."""
    if out is not None:
        return Path(out).expanduser().resolve() / "bad.tsv"
    key = sha256_json([settings["data"], settings["task"], settings["upstream"]])[:8]
    return cache_dir() / "checks" / f"{settings['name']}-{key}.tsv"
