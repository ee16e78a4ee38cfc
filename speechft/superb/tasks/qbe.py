"""QbE: which English documents of QUESST 2014 hold a spoken query, by DTW (s3prl/downstream/quesst14_dtw)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from speechft.errors import UsageError
from speechft.superb import mtwv
from speechft.superb.items import Item, Split
from speechft.superb.tasks.base import Task
from speechft.superb.tasks.checks import whole_numbers

_LISTS = ("language_key_utterances.lst", "language_key_dev.lst", "language_key_eval.lst")
_OWN_DISTANCES = ("cosine_exp", "cosine_neg_log")  # of s3prl; others are SciPy's
_TRUTHS = {"dev": "groundtruth_quesst14_dev", "test": "groundtruth_quesst14_eval"}


class QbE(Task):
    """Nothing is trained: every layer is searched on dev, and the best one on eval (`superb/search.py`).

    The corpus is at 8 kHz; its conversion to 16 kHz, SoX's in s3prl, is torchaudio's here (`superb/sox_effects.py`).
    """

    name = "qbe"
    folder = "quesst14_dtw"
    metric = "mtwv"
    higher_better = True
    kind = "frames"
    needs: ClassVar[Mapping[str, str]] = {
        "quesst14": "quesst14Database with Audio, scoring, ..., from speech.fit.vutbr.cz/files/quesst14Database.tgz",
    }
    recipe_keys = ("num_workers",)
    extra_keys = (
        "layers", "distance", "normalize_features", "minmax", "step_pattern", "subsequence", "workers", "batch_size",
    )  # fmt: skip
    splits = ("dev", "test")
    resamples = True
    one_store = True  # both sets search the same documents

    def check(self, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().check(data, settings)
        if settings["layers"] is not None:
            whole_numbers("superb.qbe.layers", settings["layers"], 0, several=True)
        if str(settings["distance"]) not in _OWN_DISTANCES:
            from scipy.spatial.distance import cdist

            try:
                cdist([[1.0]], [[1.0]], str(settings["distance"]))
            except ValueError as error:
                raise UsageError(
                    f"superb.qbe.distance={settings['distance']} is unknown", "cosine_exp, or a name of SciPy's cdist"
                ) from error
        if settings["subsequence"] and settings["step_pattern"] != "asymmetric":
            raise UsageError("superb.qbe.subsequence needs step_pattern=asymmetric", "s3prl knows no other")
        if settings["normalize_features"] and settings["distance"] == "cosine_neg_log":
            raise UsageError("superb.qbe.distance=cosine_neg_log needs normalize_features=false", "s3prl says so")

    def missing(self, data: Mapping[str, Any]) -> list[str]:
        packages = [name for name, module in (("dtw-python", "dtw"), ("lxml", "lxml")) if find_spec(module) is None]
        absent = [f"{', '.join(packages)} not installed (pip install 'speechft[qbe]')"] if packages else []
        return absent + super().missing(data)

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        del there
        root = self.paths(data, "quesst14")[0]
        scoring = root / "scoring"
        absent = [f"scoring/{name}" for name in _LISTS if not (scoring / name).is_file()]
        for truth in _TRUTHS.values():
            absent += [f"scoring/{truth}/{pattern}" for pattern in mtwv.missing_truth(scoring / truth)]
        if absent:
            return [f"{root} has no {', '.join(absent)} ({self.needs['quesst14']})"]
        problems = []
        for name in _LISTS:
            lines = [line.split() for line in (scoring / name).read_text(encoding="utf-8").splitlines() if line.strip()]
            # s3prl takes the first part of the path off
            wavs = [fields[0].partition("/")[2] for fields in lines if fields[-1] == "nnenglish"]
            gone = [wav for wav in wavs if not (root / wav).is_file()]
            if gone:
                shown = ", ".join(gone[:5]) + (" ..." if len(gone) > 5 else "")
                problems.append(
                    f"{len(gone)} of the {len(wavs)} English files of {name} are not under {root} ({shown})"
                )
            if not wavs:
                problems.append(f"scoring/{name} names no file as nnenglish")
        return problems

    def config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        return {"runner": {}, "downstream_expert": self.expert_config(settings, data, work)}

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        del work
        workers = settings["workers"]
        return {
            "two_stages": False,
            "max_workers": None if workers is None else int(workers),
            "feature_normalization": bool(settings["normalize_features"]),
            "silence_frame": None,
            "datarc": {
                "dataset_root": str(self.paths(data, "quesst14")[0]),
                "num_workers": int(settings["num_workers"]),
                "batch_size": int(settings["batch_size"]),
            },
            "dtwrc": {
                "dist_method": str(settings["distance"]),
                "minmax_norm": bool(settings["minmax"]),
                "step_pattern": str(settings["step_pattern"]),
                "subsequence": bool(settings["subsequence"]),
            },
        }

    def truth(self, data: Mapping[str, Any], split: str) -> tuple[mtwv.Truth, mtwv.Costs]:
        """What is to be found in `dev` or `test`, and what errors cost."""
        scoring = self.paths(data, "quesst14")[0] / "scoring"
        return mtwv.read_truth(scoring / _TRUTHS[split]), mtwv.read_costs(scoring)

    def engine(self, name: str) -> Callable[..., Any]:
        from speechft.superb import search

        return {"fast": search.fast, "s3prl": search.reference}[name]

    def dataset(self, expert: Any, split: str) -> Any:
        return self.loader(expert, split).dataset

    def files(self, expert: Any, split: str) -> list[Path]:
        return [Path(path) for path in self.dataset(expert, split).data]

    def read(self, expert: Any, split: str, item: Item) -> np.ndarray:
        """By path: queries and documents of both sets are stored together."""
        del split
        alone = copy.copy(self.dataset(expert, "dev"))
        alone.data = [item.path]
        return np.asarray(alone[0][0], dtype=np.float32)

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        del split
        return self.paths(data, "quesst14")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "qbe: one channel, 16 kHz, -3 dB"

    def batches(self, expert: Any, split: Split, loader: Any) -> Any:
        raise NotImplementedError("QbE has no batches: nothing is trained")

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A line per query searched: `twv` is its own, `value` its part of the score, whose mean over lines is MTWV."""
        lines: Sequence[dict[str, Any]] = records["queries"]
        return [dict(line) for line in lines]
