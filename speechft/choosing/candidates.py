"""The upstreams of a sweep: the pre-trained one, and merged ones made one at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.merge.merge import merge, merge_run
from speechft.merge.parents import open_parents
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
        """Hashes of the parents, how they are merged, how upstreams are heard.

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
        return {"parents": weights, "merge": how, "heard": heard}

    def with_statistics(self, out: Path) -> Candidates:
        """The same; what the method weighs models by has been collected, once for all α, into `out/statistics`.

        Raises:
            UsageError, SpeechFTError: as `merge`.
        """
        corpus = self.options.get("corpus")
        if not corpus or self.options.get("checkpoints"):
            return self
        method = method_named(str(self.options.get("method", "linear")))
        needed(method, self.options.get("statistics"), corpus)
        from speechft.merge.collect import collect_all

        parents = open_parents(str(self.upstream["source"]), self.finetuned)
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
