"""The two sides of `scripts/bench superb`: the fast engine and s3prl's own loop, each timed part by part."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from speechft.bench.forward import SIZES
from speechft.checkpoints.convert import convert
from speechft.data.audio import SAMPLE_RATE
from speechft.superb.assemble import build_modules, features_of_splits, plan_splits
from speechft.superb.batches import FeatureSplit
from speechft.superb.extract import Streamed, computer, encode
from speechft.superb.fast import FastRun
from speechft.superb.reference import ReferenceRun
from speechft.superb.store import FeatureStore
from speechft.superb.tasks.base import Task
from speechft.upstreams.base import Upstream
from speechft.upstreams.load import load_upstream
from speechft.upstreams.numerics import Numerics
from speechft.upstreams.pages import give_back_pages, keep_pages

if TYPE_CHECKING:
    from speechft.bench.superb import Setting

_HUB_NAME = "speechft_bench"
_LAST = 10**9  # a step that is never reached


def models(setting: Setting, folder: Path) -> tuple[Upstream, nn.Module, nn.Module]:
    """Our upstream, s3prl's of the same random weights, and one that has its features ready (`Ready`)."""
    import transformers

    torch.manual_seed(setting.seed)
    config = transformers.HubertConfig(**SIZES[setting.size])
    transformers.HubertModel(config).save_pretrained(folder / "hf")
    (folder / "hf" / "preprocessor_config.json").write_text('{"do_normalize": false}\n', encoding="utf-8")
    native = convert(folder / "hf", folder / "hubert.pt", "s3prl")
    ours = load_upstream(folder / "hf").to(setting.device)
    import s3prl.hub

    theirs = s3prl.hub.hubert_custom(str(native)).to(setting.device).eval()
    return ours, theirs, Ready(ours.num_layers, ours.dim, ours.hop).to(setting.device)


class Ready(nn.Module):
    """An upstream of s3prl's interface that takes no time: slices of noise, for timing what comes behind it."""

    def __init__(self, layers: int, dim: int, hop: int) -> None:
        super().__init__()
        self.dim, self.hop = dim, hop
        self.noise = torch.randn(layers, 1)

    def get_downsample_rates(self, key: str) -> int:
        del key
        return self.hop

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        """Waveforms -> `hidden_states`, `[batch, frames, dim]` of each layer."""
        frames = max(1, (max(len(wave) for wave in wavs) - 80) // self.hop)
        size = len(wavs) * frames * self.dim
        if self.noise.shape[1] < size:
            self.noise = torch.randn(len(self.noise), size, device=wavs[0].device)
        states = [layer[:size].view(len(wavs), frames, self.dim) for layer in self.noise]
        return {"hidden_states": states, "last_hidden_state": states[-1]}


def wait(device: str) -> float:
    """The time, once the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Peak:
    """Peak memory inside a `with`, in bytes: of the GPU, or of this process where Linux lets it be reset (else NaN)."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes = device, float("nan")

    def __enter__(self) -> Peak:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                self.device = "unknown"
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.startswith("cuda"):
            self.bytes = float(torch.cuda.max_memory_allocated(self.device))
        elif self.device != "unknown":
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            self.bytes = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def middle(marks: list[float]) -> float:
    """The median time between two marks."""
    gaps = sorted(b - a for a, b in itertools.pairwise(marks))
    return gaps[len(gaps) // 2]


class Theirs:
    """s3prl's `Runner`, unchanged; time is read where it calls the expert.

    Args:
        setting: device and seed.
        task, recipe, data: what is trained; `recipe` with `accumulate` 1.
        upstream: a module of s3prl's interface.
        folder: for its files.
    """

    def __init__(
        self, setting: Setting, task: Task, recipe: Mapping[str, Any], data: Mapping[str, Any], upstream: nn.Module,
        folder: Path,
    ) -> None:  # fmt: skip
        self.setting, self.task, self.recipe, self.data = setting, task, recipe, data
        self.upstream, self.folder = upstream, folder

    def measure(self, steps: int, evaluate: bool) -> dict[str, float]:
        """`theirs`: seconds of a micro-batch; `their_dev`: seconds for a second of dev audio; `their_peak` in bytes."""
        import s3prl.hub

        device, marks = self.setting.device, list[float]()
        give_back_pages()  # the fast engine keeps them, s3prl does not
        shutil.rmtree(self.folder, ignore_errors=True)
        # the first mark is in the first batch, so one batch more than is timed
        recipe = {**self.recipe, "steps": steps + 1}
        setattr(s3prl.hub, _HUB_NAME, lambda *_, **__: self.upstream)
        try:
            with self.task.environment(self.folder):
                config = self.task.config(recipe, self.data, self.folder)
                config["runner"].update(log_step=_LAST, eval_step=_LAST, save_step=_LAST)
                run = ReferenceRun(self.task, config, _HUB_NAME, self.folder, self.setting.seed, device)
                runner = run.runner()
                runner.downstream.model.register_forward_pre_hook(
                    lambda _, given: marks.append(wait(device)) if given[0] == "train" else None
                )
                with Peak(device) as peak:
                    runner.train()
                figures = {"theirs": middle(marks), "their_peak": peak.bytes}
                if evaluate:
                    split = self.task.split(run.expert, "dev", 1)
                    audio = sum(item.samples for item in split.items) / SAMPLE_RATE
                    began = wait(device)
                    runner.evaluate(self.task.expert_split("dev"))
                    figures["their_dev"] = (wait(device) - began) / audio
        finally:
            delattr(s3prl.hub, _HUB_NAME)
        return figures


class Fast:
    """The fast engine.

    Args:
        setting: device, seed, steps.
        task, recipe, data: what is trained; `recipe` with `accumulate` 1.
        upstream: ours.
        folder: for store and files.

    Attributes:
        mean_seconds: of the training files.
        row_bytes: of a stored row.
    """

    def __init__(
        self, setting: Setting, task: Task, recipe: Mapping[str, Any], data: Mapping[str, Any], upstream: Upstream,
        folder: Path,
    ) -> None:  # fmt: skip
        self.setting, self.task, self.data, self.upstream, self.folder = setting, task, data, upstream, folder
        # KS: a hundred seconds of each noise file would be most of this small corpus; `scale` adds them. SID: as many
        # crops as a large corpus gets, not what a small one can afford; `scale` counts those of the official one.
        small: dict[str, dict[str, float]] = {"ks": {"crops": 1}, "sid": {"crop_hours": 0.0}}
        self.recipe = {**recipe, **small.get(task.name, {}), "steps": setting.head_steps + 1}
        self.mean_seconds = float("nan")
        self.row_bytes = 0

    def measure(self, rates: list[float], stream: bool) -> dict[str, float]:
        """Seconds: `encode` (of a second of audio), `ours` (a micro-batch, all rates), `our_head` (one rate),
        `our_dev` (an utterance, all rates), `streamed` (a micro-batch, if asked for); `our_peak` in bytes."""
        setting, task, device = self.setting, self.task, torch.device(self.setting.device)
        numerics = Numerics(setting.precision)
        shutil.rmtree(self.folder, ignore_errors=True)
        figures: dict[str, float] = {}
        with task.environment(self.folder), Peak(setting.device) as peak:
            config = task.config(self.recipe, self.data, self.folder)
            config["runner"].update(log_step=100, eval_step=_LAST)
            featurizer, expert = build_modules(task, config, self.upstream, self.folder, setting.seed, device)
            plans = plan_splits(task, expert, self.upstream, self.recipe, self.data, "float32", numerics)
            self._describe(plans, expert)
            audio = sum(item.samples for split, _, _ in plans.values() for item in split.items) / SAMPLE_RATE
            self._warm_up(device, numerics)
            began = wait(setting.device)
            features = features_of_splits(
                task, expert, plans, self.recipe, self.data, self.upstream, FeatureStore(self.folder / "store"),
                device, "float32", setting.batch_seconds, 1e3, numerics=numerics,
            )  # fmt: skip
            figures["encode"] = (wait(setting.device) - began) / audio
            splits = {
                name: FeatureSplit(task, expert, split, features[name], device) for name, (split, _, _) in plans.items()
            }
            if splits["train"].table is not None:
                _repeat(splits["train"], setting.rows)
            run = FastRun(task, config, featurizer, expert, splits, setting.seed, device)
            figures["our_head"] = figures["ours"] = self._train(run, [])
            if rates:
                figures["ours"] = self._train(run, rates)
            threads = torch.get_num_threads()
            run.few_threads()
            began = wait(setting.device)
            run.evaluate("dev", run.heads)
            figures["our_dev"] = (wait(setting.device) - began) / len(plans["dev"][0].items)
            torch.set_num_threads(threads)
            if stream:
                split, key, layout = plans["train"]
                seconds = setting.batch_seconds
                compute = computer(task, expert, split, self.upstream, key.kind, device, seconds, numerics)
                run.splits = {
                    **splits, "train": FeatureSplit(task, expert, split, Streamed(compute, key, layout), device),
                }  # fmt: skip
                figures["streamed"] = self._train(run, rates, setting.steps + 1)
        return {**figures, "our_peak": peak.bytes}

    def _train(self, run: FastRun, rates: list[float], steps: int | None = None) -> float:
        marks: list[float] = []
        run.step = run.micro_steps = 0
        run.rates = rates
        total = run.config["runner"]["total_steps"]
        run.config["runner"]["total_steps"] = steps or total  # type: ignore[index]
        run.progress = lambda done, total: marks.append(wait(self.setting.device))
        threads = torch.get_num_threads()
        try:
            run.few_threads()
            run.train()
        finally:
            torch.set_num_threads(threads)
            run.config["runner"]["total_steps"] = total
        return middle(marks)

    def _warm_up(self, device: torch.device, numerics: Numerics) -> None:
        """A batch that is not timed, since the recipe encodes hours: memory is then there, and kernels are chosen."""
        if device.type == "cpu":
            keep_pages()
        longest = int(min(8.0, self.setting.batch_seconds) * SAMPLE_RATE)
        waves = [np.zeros(longest, np.float32)] * max(1, int(self.setting.batch_seconds * SAMPLE_RATE) // longest)
        encode(self.upstream.to(device).eval(), waves, self.task.kind, device, self.setting.batch_seconds, numerics)

    def _describe(self, plans: Mapping[str, Any], expert: Any) -> None:
        from speechft.data.audio import audio_info

        _, key, layout = plans["train"]
        paths = self.task.files(expert, "train")
        seconds = [(info := audio_info(path)).samples / info.rate for path in paths]
        if self.task.name == "ks":  # the noise files are not utterances
            seconds = [min(one, 1.0) for one in seconds]
        self.mean_seconds = sum(seconds) / len(seconds)
        self.row_bytes = layout.row_bytes(key)


def _repeat(split: FeatureSplit, rows: int) -> None:
    """As many rows as would not stay in a cache, the few measured ones over and over; a look-up takes any copy."""
    assert split.table is not None
    few, batch = len(split.table), split.batch
    copies = -(-rows // few)
    split.table = split.table.repeat(copies, 1, 1)

    def spread(indices: Any) -> tuple[list[int], list[Any]]:
        numbers, others = batch(indices)
        return [number + few * random.randrange(copies) for number in numbers], others

    split.batch = spread
