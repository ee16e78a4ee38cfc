"""What must be there before anything is trained: corpora, weights. Phrases say what is missing, all of it at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.config.compose import compose
from speechft.config.locate import read_group
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_json
from speechft.reproduce.finished import tasks_left
from speechft.reproduce.parts import Part, parts_of
from speechft.reproduce.plan import Stage, paper_of
from speechft.reproduce.request import Request
from speechft.reproduce.rows import rows

if TYPE_CHECKING:
    from speechft.upstreams.base import Upstream

_SHOWN = 3  # of what is wrong in one corpus


@dataclass
class Survey:
    """What was found.

    Attributes:
        checkpoints: choice of `configs/upstream` -> path, where the user gave one.
        problems: what stops the plan, a phrase each.
        notes: what is worth knowing.
        corpora: by `corpus_key`: figures of `train` and `dev` (`data.check.Corpus.summary`).
        upstreams: choice of `configs/upstream` -> one of its architecture.
        ready: SUPERB tasks whose files are there.
    """

    checkpoints: Mapping[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    corpora: dict[str, dict[str, Any]] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)

    def upstream(self, name: str) -> Upstream:
        """An upstream as large as that choice of `configs/upstream`, made once.

        Raises:
            SpeechFTError: as `stand_in`.
        """
        from speechft.reproduce.stand_in import stand_in

        if name not in self.upstreams:
            settings = read_group("upstream", name)
            self.upstreams[name] = stand_in({**settings, "source": self.checkpoints.get(name, settings["source"])})
        return self.upstreams[name]

    def note(self, kind: list[str], text: str) -> None:
        """A phrase, once."""
        if text not in kind:
            kind.append(text)


def survey(stages: Sequence[Stage], request: Request) -> Survey:
    """Look at everything that stages need.

    Args:
        stages: of `plan`, those that are not finished.
        request: what the user gave.

    Raises:
        UsageError: an override that cannot be.
    """
    found = Survey(request.upstreams)
    _weights(found, stages, request)
    _superb(found, stages)
    absent = _paths(found, stages, request)
    for stage in stages:
        if stage.kind == "train" and stage.row not in absent:
            for part in parts_of(settings_of(stage)):
                _corpus(found, part)
    return found


def settings_of(stage: Stage) -> dict[str, Any]:
    """The configuration of a stage of training.

    Raises:
        UsageError: a value is missing, or an override cannot be.
    """
    return compose("train", stage.words[1:-2])


def corpus_key(part: Part) -> str:
    """By what a part's corpus is known: where it is, and what is read of it."""
    return sha256_json([part.settings["data"], part.settings["task"]])


def _paths(found: Survey, left: Sequence[Stage], request: Request) -> set[str]:
    """Corpora that are not given; returns the rows that lack one."""
    wanted: dict[str, list[str]] = {}
    for stage in left:
        if stage.kind == "train":
            for name in paper_of(rows()[stage.row])["paths"]:
                if name not in request.data:
                    wanted.setdefault(name, []).append(stage.row)
    for name, names in wanted.items():
        others = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        found.problems.append(f"data.{name} is not set (trained on by {', '.join(names[:_SHOWN])}{others})")
    return {row for names in wanted.values() for row in names}


def _superb(found: Survey, left: Sequence[Stage]) -> None:
    from speechft.superb.tasks import get_task

    for stage in left:
        if stage.kind != "eval":
            continue
        data = compose("eval", stage.words[5:-2])["data"]
        for name in tasks_left(stage):
            missing = get_task(name).missing(data)
            for phrase in missing:
                found.note(found.problems, f"SUPERB {name}: {phrase}")
            if not missing:
                found.ready.add(name)


def _weights(found: Survey, left: Sequence[Stage], request: Request) -> None:
    for name in dict.fromkeys(stage.upstream for stage in left if stage.upstream):
        settings = read_group("upstream", name)
        source = request.upstreams.get(name)
        if source is None and settings["source"] is None:
            found.problems.append(f"upstream.{name} is not set (no hub has its checkpoint)")
        elif source is None:
            if _fetched(str(settings["source"])):
                continue
            if _offline():
                found.problems.append(f"{settings['source']} was not fetched before, and HF_HUB_OFFLINE is set")
            else:
                found.notes.append(f"{settings['source']} will be fetched from the Hugging Face hub")
        elif not Path(source).exists():
            found.problems.append(f"upstream.{name}={source} does not exist")
        elif (said := _normalizes(Path(source))) is not None and settings["normalize"] not in (None, said):
            found.problems.append(
                f"upstream.{name}={source}: its preprocessor_config.json has do_normalize {str(said).lower()}, and "
                f"{name} is trained with {str(settings['normalize']).lower()}: change the file"
            )


def _offline() -> bool:
    """Whether the user has switched the hub off (huggingface_hub/constants.py has these values)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _normalizes(source: Path) -> bool | None:
    """What a Hugging Face folder says of its input; other files are heard by their own configuration."""
    file = source / "preprocessor_config.json"
    return bool(read_json(file).get("do_normalize", True)) if file.is_file() else None


def _fetched(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(name, file), str)
               for file in ("model.safetensors", "pytorch_model.bin"))  # fmt: skip


def _corpus(found: Survey, part: Part) -> None:
    """A training corpus, as training would look at it."""
    from speechft.data.check import load_corpus
    from speechft.data.problems import counted
    from speechft.tasks.build import build_task

    key = corpus_key(part)
    if key in found.corpora:
        return
    try:
        task, name = build_task(part.settings["task"]), str(part.settings["upstream"]["name"])
        corpus = load_corpus(
            part.settings["data"],
            lambda cuts: task.check(found.upstream(name), cuts),
            check_splits=task.check_splits,
        )
    except UsageError:
        raise
    except SpeechFTError as error:
        found.note(found.problems, f"{part.name}: {error}")
        found.corpora[key] = {}
        return
    found.corpora[key] = corpus.summary
    found.note(found.notes, f"{part.name}: {'; '.join(corpus.lines())}")
    if corpus.problems and not part.settings["data"]["skip_bad"]:
        reasons = "; ".join(one.reason for one in corpus.problems[:_SHOWN])
        found.note(
            found.problems,
            f"{part.name}: {counted(corpus.problems)} ({reasons}); train.data.skip_bad=true leaves them out",
        )
