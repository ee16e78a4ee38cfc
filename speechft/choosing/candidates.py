"""The upstreams of a sweep: the pre-trained one, and merged ones made one at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from speechft.console import silent
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, sha256_file, sha256_json
from speechft.merge.merge import merge, merge_run, moved
from speechft.merge.parents import open_parents
from speechft.merge.plan import planned
from speechft.merge.registry import method_named, versioned
from speechft.merge.statistics import needed
from speechft.runs import Run
from speechft.train.sequence import pretrained
from speechft.upstreams.base import Upstream
from speechft.upstreams.load import load_upstream


@dataclass(frozen=True)
class Candidates:
    """Parents and how they are merged.

    Attributes:
        name: of the run, or of the folder that merged models go to.
        upstream: how an upstream of these parents is loaded, as for `load_upstream`; its source is θ0.
        finetuned: θ'_k.
        options: of the merge: keywords of `merge` (of a run: `merge_run`) beside parents, α and output.
        run: whose parents these are, if a run's.
    """

    name: str
    upstream: Mapping[str, Any]
    finetuned: Sequence[Path]
    options: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = None

    @classmethod
    def of_run(cls, run: Run, config: Mapping[str, Any], options: Mapping[str, Any]) -> Candidates:
        """A run's parents.

        Raises:
            SpeechFTError: the run is not finished, or began with random weights.
        """
        if not run.finished:
            raise SpeechFTError(f"{run.folder} is not finished", "run its train command again; it goes on")
        record = read_json(run.pretrained)
        if record.get("random_seed") is not None:
            raise SpeechFTError(f"{run.folder} was trained from fresh weights", "there is nothing to choose between")
        return cls(run.folder.name, pretrained(config["upstream"], record), [run.finetuned], options, run)

    @property
    def identity(self) -> dict[str, Any]:
        """Hashes of the parents, how they are merged (files by what they hold), how upstreams are heard.

        Raises:
            SpeechFTError: parents that do not fit together.
        """
        parents = open_parents(str(self.upstream["source"]), self.options.get("checkpoints") or self.finetuned)
        try:
            weights = [one.sha256() for one in (parents.base, *parents.tuned)]
        finally:
            parents.close()
        heard = {key: value for key, value in self.upstream.items() if key not in ("name", "source", "dropout")}
        how = {key: str(value) for key, value in self.options.items() if key not in ("to", "check", "checkpoints")}
        if "method" in how:
            how["method"] = versioned(how["method"])
        return {"parents": weights, "merge": {**how, **self._files}, "heard": heard}

    @cached_property
    def _files(self) -> dict[str, str]:
        """Files that the merge depends on, by what they hold."""
        found = {}
        if self.options.get("statistics"):
            files = [Path(one).expanduser() for one in self.options["statistics"]]
            found["statistics"] = str([sha256_file(file) for file in files])
        if self.options.get("corpus"):
            from speechft.merge.collect import corpus_sha256

            found["corpus"] = corpus_sha256(str(self.options["corpus"]))
        return found

    def label(self, alpha: float) -> str:
        """A name for the results of an α: `NAME-alpha-A` of plain linear merging; with the method and a hash of what
        else was chosen, of any other."""
        method, told = self.variant or ("", "")
        return f"{self.name}-{method}-alpha-{alpha:g}-{told}" if method else f"{self.name}-alpha-{alpha:g}"

    @property
    def variant(self) -> tuple[str, str] | None:
        """The method, and a hash of all that is chosen beside it; None of plain linear merging."""
        options = self.options
        method = method_named(str(options.get("method", "linear")))
        given = options.get("parameters") or {}
        chosen = {
            "parameters": {one.name: one.read(given[one.name]) for one in method.parameters if one.name in given},
            "at": list((options.get("alpha_at") or {}).items()), "keep": list(options.get("keep") or ()),
            "weight_norm": options.get("weight_norm", "stored"), **self._files,
            "seed": options.get("seed", 0) if self._files else 0,
            "checkpoints": [Path(one).name for one in options.get("checkpoints") or ()],
        }  # fmt: skip
        plain = method.name == "linear" and chosen["weight_norm"] == "stored"
        if plain and not any(value for key, value in chosen.items() if key != "weight_norm"):
            return None
        return method.name, sha256_json([versioned(str(options.get("method"))), chosen])[:8]

    def check(self, alphas: Sequence[float], out: Path) -> None:
        """Whether these can be merged, as far as it shows without their weights.

        Args:
            alphas: the sweep.
            out: where the chosen model goes.

        Raises:
            UsageError, SpeechFTError: as `merge`; an α for every layer, which leaves none to choose.
        """
        options = {key: value for key, value in self.options.items() if key not in ("checkpoints", "seed", "check")}
        if options.get("alpha_by_depth"):
            raise UsageError(
                "with --alpha-by-depth there is no alpha to choose",
                "leave it out, or give --alpha-at with --alpha auto",
            )
        source, tuned = str(self.upstream["source"]), list(self.finetuned)
        checkpoints = self.options.get("checkpoints")
        if checkpoints is not None:
            with silent():
                tuned = moved(source, checkpoints)
        planned(source, tuned, alphas, out=out.expanduser().resolve(), **{"method": "linear", **options}).close()

    def with_statistics(self, out: Path) -> Candidates:
        """The same; what the method weighs models by has been collected, once for all α, into `out/statistics`.

        Raises:
            UsageError, SpeechFTError: as `merge`.
        """
        corpus = self.options.get("corpus")
        if not corpus:
            return self
        method = method_named(str(self.options.get("method", "linear")))
        needed(method, self.options.get("statistics"), corpus)
        from speechft.merge.collect import collect_all

        parents = open_parents(str(self.upstream["source"]), self.options.get("checkpoints") or self.finetuned)
        try:
            seed = int(self.options.get("seed", 0))
            files = collect_all(parents, str(method.statistics), str(corpus), out / "statistics", seed)
        finally:
            parents.close()
        return replace(self, options={**self.options, "corpus": None, "statistics": files})

    def merge(self, alpha: float, out: Path) -> Path:
        """Write `out/alpha-A/`.

        Raises:
            UsageError, SpeechFTError: as `merge`.
        """
        if self.run is not None:
            merged = merge_run(self.run, [alpha], out=out, **self.options)
        else:
            merged = merge(str(self.upstream["source"]), list(self.finetuned), [alpha], out=out, **self.options)
        return merged[0].folder

    @contextlib.contextmanager
    def at(self, alpha: float, scratch: Path) -> Iterator[Upstream]:
        """The upstream at an α, ready for inference; its folder is gone afterwards. At 0 it is the pre-trained one."""
        if alpha == 0:
            yield load_upstream(self.upstream)
            return
        try:
            folder = self.merge(alpha, scratch)
            yield load_upstream({**self.upstream, "source": str(folder)})
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
