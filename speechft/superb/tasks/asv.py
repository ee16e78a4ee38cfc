"""ASV: do two utterances of VoxCeleb1 have the same speaker (s3prl/downstream/sv_voxceleb1)."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from speechft.errors import SpeechFTError
from speechft.superb.records import Scores
from speechft.superb.scopes import swapped
from speechft.superb.tasks.checks import read_list
from speechft.superb.tasks.voxceleb1 import VoxCeleb1Task
from speechft.superb.trimmed import TrimmedLengths

_FRAMES = 16
"""That an utterance needs: the x-vector's layers take 14 away, and a deviation is of two at least."""
_LISTS = ("voxceleb1_test_v2.txt", "veri_test2.txt")


class ASV(VoxCeleb1Task):
    """An x-vector over all frames, so `frames` it is. Pauses are cut out of every file, by SoX's `silence`.

    There is no dev set: SUPERB reports the best equal error rate on the trials themselves of the states after every
    20 000 steps (s3prl's docs/superb.md and sv_voxceleb1/test_expdir.sh).
    """

    name = "asv"
    folder = "sv_voxceleb1"
    metric = "eer"
    higher_better = False
    kind = "frames"
    splits = ("train", "test")
    selected_on = "test"
    resamples = True
    needs: ClassVar[Mapping[str, str]] = {
        "voxceleb1": "the folder of VoxCeleb1 with dev/wav/id10001/..., from robots.ox.ac.uk/~vgg/data/voxceleb",
        "voxceleb1_trials": "VoxCeleb1's cleaned trial list, voxceleb1_test_v2.txt from openslr.org/49",
    }
    extra_keys = ("eval_batch_size", "crop_seconds", "min_seconds")

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self.trials: list[list[str]] = []

    def paths(self, data: Mapping[str, Any], key: str) -> list[Path]:
        found = super().paths(data, key)
        if key == "voxceleb1_trials" and not found:  # many keep it inside the corpus
            found = [root / name for root in super().paths(data, "voxceleb1") for name in _LISTS]
            found = [path for path in found if path.is_file()][:1]
        return found

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        if "voxceleb1" not in there:
            return []
        root = self.paths(data, "voxceleb1")[0]
        parts = [root / part / "wav" for part in ("dev", "test")]
        problems = [f"{part} does not exist ({self.needs['voxceleb1']})" for part in parts if not part.is_dir()]
        if not problems and not any(parts[0].glob("*/*/*")):
            problems.append(f"{parts[0]} has no SPEAKER/VIDEO/*.wav ({self.needs['voxceleb1']})")
        if problems or "voxceleb1_trials" not in there:
            return problems
        return self._missing_trials(self.paths(data, "voxceleb1_trials")[0], parts[1])

    def _missing_trials(self, listing: Path, root: Path) -> list[str]:
        lines = read_list(listing, self.needs["voxceleb1_trials"])
        wrong = [number for number, line in enumerate(lines, 1) if len(line) != 3 or line[0] not in ("0", "1")]
        if wrong or {line[0] for line in lines} != {"0", "1"}:
            where = f"line {wrong[0]} of {listing} is" if wrong else f"{listing} has no same or no different speakers:"
            return [f"{where} not a list of `1 FILE FILE` and `0 FILE FILE` ({self.needs['voxceleb1_trials']})"]
        names = sorted({name for line in lines for name in line[1:]})
        absent = [name for name in names if not (root / name).is_file()]
        if not absent:
            return []
        shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        return [f"{len(absent)} of the {len(names)} files of {listing} are not under {root} ({shown})"]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """s3prl opens a list of dev trials, so it gets an empty one, written to `work`."""
        work.mkdir(parents=True, exist_ok=True)
        empty = work / "no_dev_trials.txt"
        empty.write_text("", encoding="utf-8")
        return {
            "datarc": {
                "vad_config": {"min_sec": round(float(settings["min_seconds"]) * 16_000)},  # samples, for all its name
                "file_path": str(self.paths(data, "voxceleb1")[0]),
                "train_meta_data": "",  # not read
                "dev_meta_data": str(empty),
                "test_meta_data": str(self.paths(data, "voxceleb1_trials")[0]),
                "max_timestep": round(float(settings["crop_seconds"]) * 16_000),
                "train_batch_size": int(settings["batch_size"]),
                "eval_batch_size": int(settings["eval_batch_size"]),
                "num_workers": int(settings["num_workers"]),
            },
            "modelrc": {
                "module": "XVector",
                "input_dim": int(settings["project_dim"]),
                "agg_module": "SP",
                "utter_module": "UtteranceExtractor",
                "module_config": {"XVector": {"agg_dim": 1500, "dropout_p": 0.0, "batch_norm": False}},
                "ObjectiveLoss": "AMSoftmaxLoss",
                "LossConfig": {"AMSoftmaxLoss": {"s": 30.0, "m": 0.4}},
            },
        }

    def config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """Nothing is evaluated in between; a state is kept wherever one is to be scored."""
        config = super().config(settings, data, work)
        every, steps = config["runner"]["eval_step"], config["runner"]["total_steps"]
        config["runner"].update(eval_dataloaders=[], save_step=every, max_keep=steps // every + 1)
        return config

    @contextlib.contextmanager
    def environment(self, work: Path) -> Iterator[None]:
        """s3prl keeps the lengths of trimmed files beside its own code, under one name for all corpora: a fresh place,
        filled from our cache, which tells them apart. Its expert asks for a GPU."""
        del work
        from s3prl.downstream.sv_voxceleb1 import dataset
        from s3prl.downstream.sv_voxceleb1.expert import DownstreamExpert

        self.lengths = {}
        measure = functools.partial(TrimmedLengths, into=self.lengths, progress=self.bar("asv lengths without pauses"))
        with (
            tempfile.TemporaryDirectory() as folder,
            swapped(dataset, "__file__", str(Path(folder) / "dataset.py")),
            swapped(dataset, "Parallel", measure),
            swapped(DownstreamExpert, "forward", _where_it_is(_long_enough(DownstreamExpert.forward))),
        ):
            yield

    def settle(self, expert: Any) -> None:
        """s3prl takes the test files from a set, whose order changes from process to process."""
        expert.test_dataset.dataset.sort()
        self.trials = expert.test_dataset.pair_table

    def reading(self, settings: Mapping[str, Any]) -> str:
        crops = float(settings["crop_seconds"])
        return f"asv: one channel, 16 kHz, -3 dB, pauses cut out; training crops of {crops} s"

    def crop(self, expert: Any, split: str, index: int, samples: int) -> tuple[int, bool]:
        if split != "train":
            return samples, False
        dataset = self.dataset(expert, split)
        samples = self.lengths.get(str(dataset.dataset[index]), samples)
        return min(samples, dataset.max_timestep), samples > dataset.max_timestep

    @contextlib.contextmanager
    def without_audio(self) -> Iterator[None]:
        import torch
        from s3prl.downstream.sv_voxceleb1 import dataset

        silence = torch.zeros(1, 1)
        with swapped(dataset, "apply_effects_file", lambda *_, **__: (silence, 16_000)):
            yield

    def metrics(self, scores: Scores, split: str) -> dict[str, float]:
        return {{"EER": "eer"}.get(name, name): value for name, value in super().metrics(scores, split).items()}

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One line per trial: the pair, `score` (cosine of the two vectors), `label` (1 for the same speaker)."""
        return [
            {"file": name, "score": float(score), "label": int(label)}
            for name, score, (label, _, _) in zip(records["pair_names"], records["scores"], self.trials, strict=True)
        ]


def _long_enough(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The expert's own forward, after a word about utterances that its x-vector cannot hear."""

    def wrapped(self: Any, mode: str, features: Any, names: Any, *args: Any, **kwargs: Any) -> Any:
        for feature, name in zip(features, names, strict=True):
            if len(feature) < _FRAMES:
                raise SpeechFTError(
                    f"{name} has {len(feature)} frames where the x-vector of ASV needs {_FRAMES}, about a third of a "
                    "second after pauses are cut out",
                    "leave its trials out of the list" if mode == "test" else "raise superb.asv.min_seconds",
                )
        return forward(self, mode, features, names, *args, **kwargs)

    return wrapped


def _where_it_is(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The expert's own forward, whose `mask.cuda()` goes to the device that the expert is on."""

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        device = next(self.parameters()).device
        with swapped(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor.to(device)):
            return forward(self, *args, **kwargs)

    return wrapped
