"""What the loop offers besides training: averaged weights, the best checkpoint, stopping early, memory, trackers."""

import shutil
import struct
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from speechft.config.compose import compose_section
from speechft.errors import MissingExtraError, SpeechFTError, UsageError
from speechft.tasks.ctc import CtcTask
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.train.options import read_trainer
from speechft.train.selection import Selection


@pytest.fixture(scope="module")
def words(train_words):
    """Eight steps, the first two with the upstream frozen."""
    return [*train_words, "trainer.steps=8", "strategy.freeze_fraction=0.25", "trainer.checkpoint_every=2",
            "trainer.eval_every=8"]  # fmt: skip


@pytest.fixture(scope="module")
def plain(words, tmp_path_factory):
    return finetune(words, tmp_path_factory.mktemp("options") / "plain")


def _weights(folder):
    return load_file(folder / "model.safetensors")


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _losses(run):
    return [line["loss"] for line in read_metrics(run.metrics) if "loss" in line]


def test_gradient_checkpointing_changes_no_bit(words, plain, tmp_path, monkeypatch):
    from torch.utils import checkpoint as module

    calls = []
    original = module._checkpoint_without_reentrant_generator
    monkeypatch.setattr(module, "_checkpoint_without_reentrant_generator",
                        lambda *given, **named: calls.append(1) or original(*given, **named))  # fmt: skip
    run = finetune([*words, "trainer.gradient_checkpointing=true"], tmp_path / "run")
    assert len(calls) == (8 + 1) * 2  # two layers, eight steps and an evaluation
    assert _equal(_weights(run.finetuned), _weights(plain.finetuned))


def test_the_average_follows_its_formula_and_resumes_bit_for_bit(words, tmp_path, plain):
    words = [*words, "trainer.ema=0.6", "trainer.checkpoint_every=1", "trainer.keep=8"]
    run = finetune(words, tmp_path / "ema")
    assert _losses(run) == _losses(plain)  # training does not see it
    steps = [load_file(run.checkpoints / f"step-{step}" / "learner.safetensors") for step in range(1, 9)]
    shadow = {}
    start = load_file(run.checkpoints / "step-1" / "average.safetensors")
    for name in start:  # after one update d = 2/11: the start is 11/2 of what is left of it
        shadow[name] = start[name].double().numpy()
        for update, weights in enumerate(steps[1:], 2):
            decay = min(0.6, (1 + update) / (10 + update))
            shadow[name] = decay * shadow[name] + (1 - decay) * weights[name].double().numpy()
        assert np.allclose(load_file(run.checkpoints / "step-8" / "average.safetensors")[name], shadow[name], atol=1e-6)
    final = _weights(run.finetuned)
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    assert np.allclose(final[name], shadow[f"upstream.model.{name}"], atol=1e-6)
    assert not torch.equal(final[name], _weights(plain.finetuned)[name])
    frozen = [key for key in final if "feature_extractor" in key]
    assert frozen and all(torch.equal(final[key], _weights(plain.finetuned)[key]) for key in frozen)

    before = final
    shutil.rmtree(run.finetuned)
    for step in (6, 7, 8):
        shutil.rmtree(run.checkpoints / f"step-{step}")
    assert _equal(_weights(finetune(words, run.folder).finetuned), before)


def test_an_average_can_begin_in_the_middle_on_purpose(words, plain, tmp_path):
    shutil.copytree(plain.folder, tmp_path / "run")
    for path in ("finetuned", "checkpoints/step-8"):
        shutil.rmtree(tmp_path / "run" / path)
    run = finetune([*words, "trainer.ema=0.6", "allow_changed_config=true"], tmp_path / "run")
    assert _losses(run) == _losses(plain)
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    shadow = load_file(run.checkpoints / "step-8" / "average.safetensors")[f"upstream.model.{name}"]
    at_6 = load_file(run.checkpoints / "step-6" / "learner.safetensors")[f"upstream.model.{name}"]
    at_8 = _weights(plain.finetuned)[name]
    low, high = torch.minimum(at_6, at_8) - 3e-3, torch.maximum(at_6, at_8) + 3e-3
    assert ((shadow >= low) & (shadow <= high)).all() and not torch.equal(shadow, at_8)


def test_half_precision_follows_full_precision(words, plain, tmp_path):
    run = finetune([*words, "trainer.precision=bf16", "trainer.steps=8"], tmp_path / "run")
    assert np.allclose(_losses(run), _losses(plain), rtol=0.03) and _losses(run) != _losses(plain)
    assert all(tensor.dtype == torch.float32 for tensor in _weights(run.finetuned).values())


def test_only_evaluations_after_the_unfreeze_count():
    selection = Selection("per", higher=False, patience=2)
    assert not selection.consider(1, "head", {"per": 1.0}) and selection.stale == 0
    assert selection.consider(2, "full", {"per": 9.0})
    assert not selection.consider(3, "full", {"per": float("nan")})
    assert selection.consider(4, "full", {"per": 8.0}) and selection.stale == 0
    assert not selection.consider(5, "full", {"per": 8.0}) and not selection.exhausted
    assert not selection.consider(6, "full", {"per": 8.5}) and selection.exhausted
    assert (selection.step, selection.value) == (4, 8.0)
    other = Selection("accuracy", higher=True, patience=None)
    other.restore(selection.state())
    assert other.consider(7, "full", {"accuracy": 8.1}) and not other.exhausted


def _scripted(monkeypatch, values):
    """The dev metric as planned."""
    told = iter(values)
    monkeypatch.setattr(CtcTask, "score", lambda *_: [])
    monkeypatch.setattr(CtcTask, "summary", lambda *_: {"per": next(told)})


def test_the_best_is_kept_and_chosen_and_patience_stops_the_run(words, tmp_path, monkeypatch):
    """Evaluations at every step; the best of all comes before the unfreeze and must not count."""
    words = [*words, "trainer.eval_every=1", "trainer.keep=1", "trainer.patience=3", "trainer.finetuned=best",
             "trainer.checkpoint_every=100"]  # fmt: skip
    _scripted(monkeypatch, [1.0, 2.0, 50.0, 40.0, 41.0, 42.0, 43.0])
    run = finetune(words, tmp_path / "run")
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-4", "step-7"}
    best = load_file(run.checkpoints / "step-4" / "learner.safetensors")
    final = _weights(run.finetuned)
    assert all(torch.equal(final[name], best[f"upstream.model.{name}"]) for name in final)
    end = read_metrics(run.metrics)[-1]
    assert (end["step"], end["event"], end["finetuned_step"], end["best_step"], end["early"]) == (7, "end", 4, 4, True)
    assert "the first 4 of 8 steps" in (run.finetuned / "README.md").read_text()
    # Killed after its last checkpoint, it does not train on, and ends in the same weights.
    shutil.rmtree(run.finetuned)
    _scripted(monkeypatch, [])
    assert _equal(_weights(finetune(words, run.folder).finetuned), final)


def test_the_last_is_taken_unless_asked(words, tmp_path, monkeypatch, plain):
    _scripted(monkeypatch, [9.0, 1.0, 2.0, 3.0])
    run = finetune([*words, "trainer.eval_every=2", "trainer.keep=1"], tmp_path / "run")
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-4", "step-8"}
    assert _equal(_weights(run.finetuned), _weights(plain.finetuned))
    _scripted(monkeypatch, [float("nan")])
    with pytest.raises(SpeechFTError, match="no evaluation after the unfreeze gave a finite per"):
        finetune([*words, "trainer.finetuned=best"], tmp_path / "nan")


def test_out_of_memory_names_the_batch(words, tmp_path, monkeypatch):
    original = CtcTask.step

    def step(self, upstream, batch):
        if len(batch.waves) == 4 and len(_losses_so_far) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        _losses_so_far.append(sum(len(wave) for wave in batch.waves) / 16_000)
        return original(self, upstream, batch)

    _losses_so_far = []
    monkeypatch.setattr(CtcTask, "step", step)
    with pytest.raises(SpeechFTError) as caught:
        finetune(words, tmp_path / "run")
    said = str(caught.value)
    assert said.startswith("out of memory at step 3 with a batch of 4 utterances, ")
    assert " s of audio (" in said and "data.batch_seconds" in said and "gradient_checkpointing=true" in said
    monkeypatch.setattr(CtcTask, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        finetune(words, tmp_path / "other")


@pytest.mark.parametrize(("word", "said"), [
    ("trainer.ema=1.5", "trainer.ema"), ("trainer.patience=0", "trainer.patience"),
    ("trainer.finetuned=first", "trainer.finetuned"), ("trainer.keep_best=1", "trainer.keep_best"),
    ("trainer.keep_cnn=gpu", "trainer.keep_cnn"), ("trainer.trackers=[mlflow]", "unknown tracker 'mlflow'"),
    ("trainer.precision=fp16", "fp16 needs a GPU"),
    ("seed=abc", "seed is 'abc'; give a whole number"), ("seed=-1", "seed is -1"), ("seed=1.5", "seed is 1.5"),
    ("task.head_lr=fast", "task.head_lr is 'fast'; give a positive number"), ("task.head_lr=0", "task.head_lr is 0"),
], ids=str)  # fmt: skip
def test_impossible_settings_are_wrong_use(words, tmp_path, word, said):
    with pytest.raises(UsageError, match=said):
        finetune([*words, word], tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_settings_that_do_not_fit_what_is_trained(words, tmp_path):
    for more, said in (
        (["trainer.finetuned=best", "data.dev=[]"], "no dev set"),
        (["trainer.keep_cnn=memory", "strategy=regular"], "trains the CNN"),
        (["trainer.keep_cnn=memory", "upstream.padding=s3prl"], "depends on the batch"),
        (["trainer.keep_cnn=memory", "upstream.chunk_seconds=1", "upstream.chunk_overlap=0.2"], "no CNN to keep"),
    ):
        with pytest.raises(UsageError, match=said):
            finetune([*words, *more], tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_kept_cnn_trains_as_one_that_is_computed(words, plain, tmp_path, place, monkeypatch):
    """The losses agree to float tolerance; with another run's kept output, or after a resume, to the bit."""
    monkeypatch.setenv("SPEECHFT_CACHE", str(tmp_path / "cache"))
    words = [*words, f"trainer.keep_cnn={place}", "data.workers=1"]
    run = finetune(words, tmp_path / "run")
    assert np.allclose(_losses(run), _losses(plain), rtol=1e-4)
    shutil.copytree(run.folder, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "finetuned")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-8")
    again = finetune(words, tmp_path / "resumed")
    assert _equal(_weights(again.finetuned), _weights(run.finetuned))
    assert bool(list((tmp_path / "cache").glob("cnn/*/*/*.safetensors"))) == (place == "disk")


def _events(folder):
    """(tag, step, value) of a TensorBoard folder, read by the format's own definition: length, two checksums, proto."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_shows_every_step_once_after_a_resume(words, tmp_path):
    words = [*words, "trainer.trackers=[tensorboard]"]
    run = finetune(words, tmp_path / "run")
    shutil.rmtree(run.finetuned)
    shutil.rmtree(run.checkpoints / "step-8")
    finetune(words, run.folder)
    events = _events(run.folder / "tensorboard")
    losses = sorted((step, value) for tag, step, value in events if tag == "loss")
    assert [step for step, _ in losses] == list(range(1, 9))
    assert np.allclose([value for _, value in losses], _losses(run))
    assert [step for tag, step, _ in events if tag == "dev_per"] == [8]


def test_wandb_goes_on_in_the_same_run(words, tmp_path, monkeypatch):
    with pytest.raises(MissingExtraError, match=r"trainer\.trackers=\[wandb\] needs wandb, which is not installed"):
        finetune([*words, "trainer.trackers=[wandb]"], tmp_path / "run")
    calls, logged = [], []

    def init(**given):
        calls.append(given)
        return types.SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=lambda: None)

    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    words = [*words, "trainer.trackers=[wandb]"]
    run = finetune(words, tmp_path / "run")
    shutil.rmtree(run.finetuned)
    shutil.rmtree(run.checkpoints / "step-8")
    finetune(words, run.folder)
    assert len(calls) == 2 and calls[0]["id"] == calls[1]["id"] and calls[1]["resume"] == "allow"
    assert [values["loss"] for step, values in logged if "loss" in values][:8] == _losses(run)


def test_a_trainer_that_lacks_a_setting_is_refused_by_name():
    trainer = compose_section("train", [], "trainer")
    del trainer["eval_seconds"], trainer["clip"]
    with pytest.raises(UsageError, match=r"the trainer lacks clip, eval_seconds; configs/trainer/default\.yaml"):
        read_trainer(trainer)
