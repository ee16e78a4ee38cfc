"""The fast engine against s3prl's own loop: equal seeds, equal batches, each waveform through the upstream alone."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
import torch
from small import superb_settings
from tiny_corpora import RECIPES

from speechft.superb import compat
from speechft.superb.assemble import assemble
from speechft.superb.bridge import registered
from speechft.superb.quiet import quiet
from speechft.superb.reference import ReferenceRun
from speechft.superb.store import FeatureStore
from speechft.superb.tasks import get_task

STEPS = {"asr": 24, "sf": 24, "se": 12, "ss": 24}
"""Optimizer steps of tasks whose heads are slow; 50 of the others."""


class AloneRun(ReferenceRun):
    """s3prl's Runner; only features are made without padding: one waveform at a time, all of its frames."""

    def runner(self, init_ckpt=None) -> Any:
        runner = super().runner(init_ckpt)
        self.losses: list[float] = getattr(self, "losses", [])

        def alone(module, wavs):
            return [module.together([wav]) for wav in wavs]

        def weighted(module, wavs, features):
            return [module.together([wav], feature)[0] for wav, feature in zip(wavs, features, strict=True)]

        for module, forward in ((runner.upstream.model, alone), (runner.featurizer.model, weighted)):
            module.together, module.forward = module.forward, MethodType(forward, module)

        def heard(module, args, output):
            if args[0] == "train":
                self.losses.append(float(output.detach()))

        runner.downstream.model.register_forward_hook(heard)
        return runner


def settings_for(task: str) -> dict:
    steps = STEPS.get(task, 50)
    recipe = {"steps": steps, "eval_step": steps // 2, "log_step": 6, "crops": 1}
    return {**superb_settings()["superb"][task], **RECIPES[task], **recipe}


def run_reference(task, settings, corpora, upstream, folder):
    run_log = folder / "reference.log"
    with quiet(run_log), task.environment(folder), registered(upstream) as name:
        config = task.config(settings, corpora.data, folder)
        run = AloneRun(task, config, name, folder / "reference", seed=5, device="cpu")
        return run.run(), run


@pytest.mark.parametrize("name", ["ks", "sid", "pr", "asr", "sf", "ic", "er fold1", "er fold4", "se", "ss"])
def test_fast_is_s3prl(name, corpora, upstream, tmp_path):
    compat.install()
    name, _, variant = name.partition(" ")
    task, settings = get_task(name), settings_for(name)
    task = task.variant(variant) if variant else task
    expected, reference = run_reference(task, settings, corpora, upstream, tmp_path)
    losses: list[float] = []
    with quiet(tmp_path / "fast.log"), task.environment(tmp_path):
        run = assemble(
            task, settings, corpora.data, upstream, FeatureStore(tmp_path / "store"), tmp_path / "fast",
            seed=5, device=torch.device("cpu"), frames_dtype="float32", batch_seconds=4.0, budget_gb=1.0,
        )  # fmt: skip
        run.on_loss = lambda step, loss: losses.append(loss)
        outcome = run.run()
    assert len(losses) == len(reference.losses) == settings["steps"] * settings["accumulate"]
    # the reference's forward hook hears the loss before it is divided by the accumulation, as on_loss does
    assert losses == pytest.approx(reference.losses, rel=1e-5, abs=1e-5)
    assert losses[-1] < losses[0]  # it learned: the comparison is not one of constants
    assert outcome.metrics == pytest.approx(expected.metrics, abs=1e-5)
    assert outcome.dev == pytest.approx(expected.dev, abs=1e-5)
    assert outcome.weights == pytest.approx(expected.weights, abs=1e-5)
    lines, truth = task.utterances(outcome.records), task.utterances(expected.records)
    assert [one["file"] for one in lines] == [one["file"] for one in truth]
    for one, other in zip(lines, truth, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    largest = max(abs(a - b) for a, b in zip(losses, reference.losses, strict=True))
    print(f"{name} {variant}: largest difference {largest:.1e}")


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_features_do_not_depend_on_the_batch(kind, upstream):
    from speechft.superb.extract import encode

    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(n, generator=generator).numpy() for n in (16_000, 5_000, 300, 9_999)]
    device = torch.device("cpu")
    together = encode(upstream, waves, kind, device, 60.0)
    alone = [encode(upstream, [wave], kind, device, 60.0)[0] for wave in waves]
    counts = upstream.frame_counts(torch.tensor([len(wave) for wave in waves])).tolist()
    assert [len(states) for states in together] == ([1] * 4 if kind == "pooled" else counts)
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


def test_batches_by_seconds():
    from speechft.superb.extract import batches_by_seconds

    lengths = [16_000, 48_000, 16_000, 32_000, 160_000]
    assert batches_by_seconds(lengths, 6.0) == [[4], [1, 3], [0, 2]]
