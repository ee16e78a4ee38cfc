"""Stage 1 as a whole: what is frozen stays frozen, runs resume bit for bit, mistakes cost nothing."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lives import ended, life
from safetensors.torch import load_file

from speechft.config.compose import compose, read_config
from speechft.errors import SpeechFTError, UsageError
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def finished(train_words, tmp_path_factory):
    return finetune(train_words, tmp_path_factory.mktemp("runs") / "stable")


def _weights(run):
    return load_file(run.finetuned / "model.safetensors")


def test_a_run_learns_and_leaves_what_the_contract_says(finished, upstream_folder):
    lines = read_metrics(finished.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 20 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert any("dev_per" in line for line in lines)
    step = next(line for line in lines if "loss" in line)
    assert {"step", "phase", "lr", "loss", "seconds_of_audio", "wall_seconds"} <= step.keys()
    record = json.loads(finished.pretrained.read_text())
    assert record["sha256"] == load_upstream(upstream_folder).identity.sha256
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (finished.finetuned / name).is_file()
    assert len(list(finished.checkpoints.glob("step-*"))) == 2
    load_upstream(finished.finetuned)


def test_hashes_by_phase(finished):
    """Frozen: the same hash; after the unfreeze: another; the CNN's: always the same."""
    marks = [line for line in read_metrics(finished.metrics) if line.get("event")]
    assert [(mark["step"], mark["phase"], mark["event"]) for mark in marks] == [
        (0, "head", "phase"), (2, "full", "phase"), (20, "full", "end"),
    ]  # fmt: skip
    assert marks[0]["upstream_sha256"] == marks[1]["upstream_sha256"] != marks[2]["upstream_sha256"]
    assert len({mark["cnn_sha256"] for mark in marks}) == 1


def test_exactly_the_cnn_stays(finished, upstream_folder):
    before, after = load_file(upstream_folder / "model.safetensors"), _weights(finished)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kept = before.keys() - changed
    assert {name for name in kept if name != "masked_spec_embed"} == {
        name for name in before if "feature_extractor" in name
    }


def test_regular_fine_tuning_moves_the_cnn(train_words, tmp_path, upstream_folder):
    run = finetune([*train_words, "strategy=regular", "trainer.steps=3"], tmp_path / "regular")
    before, after = load_file(upstream_folder / "model.safetensors"), _weights(run)
    assert all(
        not torch.equal(before[name], after[name]) for name in before if "feature_extractor.conv_layers.0.conv" in name
    )


def test_the_upstreams_optimiser_state_starts_at_the_unfreeze(train_words, tmp_path):
    words = [
        *train_words,
        "trainer.steps=10",
        "strategy.freeze_fraction=0.5",
        "trainer.checkpoint_every=1",
        "trainer.keep=20",
    ]
    run = finetune(words, tmp_path / "run")

    def entries(step):
        state = torch.load(run.checkpoints / f"step-{step}" / "optimizer.pt", weights_only=True)["optimizer"]
        return {index: int(value["step"]) for index, value in state["state"].items()}

    heads = set(entries(5))
    upstream = set(entries(6)) - heads
    assert upstream and set(entries(1)) == heads
    assert all(entries(10)[index] == 5 for index in upstream) and all(entries(10)[index] == 10 for index in heads)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(finished, train_words, tmp_path):
    same = finetune(train_words, tmp_path / "same")
    other = finetune([*train_words, "seed=1"], tmp_path / "other")
    assert all(torch.equal(a, b) for a, b in zip(_weights(finished).values(), _weights(same).values(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(_weights(finished).values(), _weights(other).values(), strict=True)
    )


def _comparable(run):
    return [{key: value for key, value in line.items() if key != "wall_seconds"} for line in read_metrics(run.metrics)]


@pytest.mark.parametrize("trial", range(3))
def test_kill_9_at_a_random_moment_and_resume_is_bit_equal(finished, train_words, tmp_path, trial):
    """The uninterrupted run and one that is killed twice end in the same bits and the same metrics."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "speechft", "train", "--out", str(out), *train_words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHFT_RUNS": str(tmp_path / "runs")}
    chance = random.Random(trial)
    for earliest in (1, 7):  # the second kill is past a checkpoint
        child = life(train_words, out, tmp_path / "said")
        wanted = chance.randint(earliest, 12)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert ended(child) is None, f"it must be killed before its end: {(tmp_path / 'said').read_text()[-500:]}"
            lines = read_metrics(out / "metrics.jsonl")
            if lines and max(line["step"] for line in lines) >= wanted:
                break
            time.sleep(0.001)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not (out / "finetuned").exists()
    before = list((out / "checkpoints").glob("step-*"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("resuming" in done.stderr) == bool(before), done.stderr
    resumed = type(finished)(out)
    ours, theirs = _weights(resumed), _weights(finished)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert _comparable(resumed) == _comparable(finished)


def test_an_interrupted_run_says_so_and_goes_on(train_words, tmp_path, finished):
    out = tmp_path / "asked"
    command = [sys.executable, "-m", "speechft", "train", "--out", str(out), *train_words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SPEECHFT_RUNS": str(tmp_path / "runs")},
    )
    deadline = time.monotonic() + 120
    while not read_metrics(out / "metrics.jsonl") and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    if process.returncode:  # it may have finished first on a fast machine
        assert process.returncode == 1 and "interrupted after step" in said and "goes on from there, in" in said
    run = finetune(train_words, out)
    assert all(torch.equal(a, b) for a, b in zip(_weights(run).values(), _weights(finished).values(), strict=True))


def test_a_damaged_checkpoint_is_named_and_an_unfinished_one_ignored(train_words, tmp_path, finished):
    out = tmp_path / "run"
    shutil.copytree(finished.folder, out)
    shutil.rmtree(out / "finetuned")
    (out / "checkpoints" / ".partial-step-99-aaaa").mkdir()
    newest = out / "checkpoints" / "step-20" / "learner.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(SpeechFTError, match="no readable checkpoint"):
        finetune(train_words, out)
    shutil.rmtree(out / "checkpoints" / "step-20")
    run = finetune(train_words, out)
    assert not (out / "checkpoints" / ".partial-step-99-aaaa").exists()
    assert all(torch.equal(a, b) for a, b in zip(_weights(run).values(), _weights(finished).values(), strict=True))


def test_a_finished_run_is_left_alone(finished, train_words, capsys):
    before = (finished.finetuned / "model.safetensors").stat().st_mtime_ns
    finetune(train_words, finished.folder)
    assert "is finished; nothing to do" in capsys.readouterr().err
    assert (finished.finetuned / "model.safetensors").stat().st_mtime_ns == before


def test_without_out_the_same_command_goes_on_where_it_was_killed(finished, train_words, tmp_path, monkeypatch, capfd):
    """And where nothing was, where another configuration was, where it is done or still at work, it begins anew."""
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    name = read_config(finished.config)["name"]
    killed = tmp_path / f"{name}-20250101-120000-77"
    shutil.copytree(finished.folder, killed)
    shutil.rmtree(killed / "finetuned")
    shutil.rmtree(max(killed.glob("checkpoints/step-*"), key=lambda path: int(path.name.partition("-")[2])))
    for other in (f"{name}-20260101-120000-3", f"{name}-x-20260101-120000-3"):  # nothing in one, the other not a run's
        (tmp_path / other).mkdir()
    run = finetune(train_words)
    assert run.folder == killed and (tmp_path / "latest").resolve() == killed
    assert f"{killed} was interrupted, with this configuration" in capfd.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(_weights(finished).values(), _weights(run).values(), strict=True))
    assert _comparable(run) == _comparable(finished)

    few = [*train_words, "trainer.steps=2"]
    done = finetune(few)
    assert (
        done.folder.parent == tmp_path and done.folder != killed and finetune(few).folder not in (done.folder, killed)
    )
    assert finetune(few, tmp_path / "mine").folder == tmp_path / "mine"


def test_other_weights_under_the_same_path_do_not_resume_a_run(train_words, tmp_path, finished, upstream_folder):
    from small import save_upstream

    moved = tmp_path / "upstream"
    shutil.copytree(upstream_folder, moved)
    words = [f"upstream.source={moved}" if word.startswith("upstream.source") else word for word in train_words]
    run = finetune([*words, "trainer.steps=5"], tmp_path / "run")
    shutil.rmtree(run.finetuned)
    save_upstream(moved, seed=9)
    with pytest.raises(SpeechFTError, match=r"has changed since .* was started"):
        finetune([*words, "trainer.steps=5"], tmp_path / "run")


def test_a_mistake_before_the_start_leaves_no_run(train_words, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path / "runs"))
    with pytest.raises(SpeechFTError):
        finetune([*train_words, "task.lexicon=/nowhere"], tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists() and not (tmp_path / "runs").exists()
    assert finetune([*train_words, "trainer.steps=1"], tmp_path / "run").finished


@pytest.mark.parametrize(("word", "said"), [
    ("trainer.log_every=0", "trainer.log_every"), ("trainer.steps=abc", "trainer.steps"),
    ("trainer.steps=true", "trainer.steps"), ("trainer.device=cuda:7", "trainer.device"),
    ("trainer.optimizer=sgd", "optimizer 'sgd'"), ("trainer.lr=fast", "trainer.lr"), ("trainer.lr=-1", "trainer.lr"),
    ("trainer.clip=0", "trainer.clip"), ("trainer.betas=[0.9]", "trainer.betas"), ("trainer.warmup=2", "warmup"),
    ("trainer.precision=fp8", "trainer.precision"), ("data.batch_size=-3", "batches of"),
    ("+trainer.warm_up=2", "unknown setting of the trainer"),
], ids=str)  # fmt: skip
def test_impossible_settings_are_wrong_use_and_leave_no_run(train_words, tmp_path, word, said):
    with pytest.raises(UsageError, match=said):
        finetune([*train_words, word], tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_another_configuration_does_not_resume_a_run(finished, train_words):
    with pytest.raises(UsageError, match=r"another configuration: trainer\.lr: 0\.001 -> 0\.5"):
        finetune([*train_words, "trainer.lr=0.5"], finished.folder)


def test_a_loss_that_stays_nan_stops_the_run(train_words, tmp_path):
    with pytest.raises(SpeechFTError, match=r"3 steps in a row gave a non-finite loss; lower trainer.lr"):
        finetune([*train_words, "trainer.lr=1e30", "trainer.patience_nan=3", "trainer.clip=1e30",
                  "trainer.checkpoint_every=1"], tmp_path / "nan")  # fmt: skip
    # what comes of the first step gives no loss, and nothing is saved any more that might push out what did
    assert [path.name for path in (tmp_path / "nan" / "checkpoints").iterdir()] == ["step-1"]


def test_accumulation_is_the_mean_over_its_batches(train_words, tmp_path, upstream_folder):
    """With a plain optimiser step worked out by hand: the update is that of the mean of the two losses."""
    words = [*train_words, "trainer.accumulate=2", "trainer.clip=1e9", "trainer.steps=1", "strategy=regular",
             "upstream.dropout=0.0", "trainer.eps=1e3", "trainer.warmup=0.0", "trainer.hold=1.0",
             "trainer.lr=1e3"]  # fmt: skip
    run = finetune(words, tmp_path / "acc")
    one = [line for line in read_metrics(run.metrics) if "loss" in line]
    assert len(one) == 1
    # Adam with an eps far above the gradient moves by lr * g / eps = g: read the mean gradient off the weights.
    before, after = load_file(upstream_folder / "model.safetensors"), _weights(run)
    name = "encoder.layers.1.feed_forward.output_dense.weight"
    moved = before[name] - after[name]
    single = []
    for order in (0, 1):
        upstream, task, batches = _same_start(words, tmp_path / f"hand{order}")
        batch = list(itertools.islice(iter(batches), 2))[order]
        upstream.train()
        task.step(upstream, batch)[0].backward()
        single.append(dict(upstream.model.named_parameters())[name].grad)
    assert torch.allclose(moved, (single[0] + single[1]) / 2, atol=1e-5)


def _same_start(words, folder):
    """The parts of a run before its first step."""
    from speechft.data.corpora import load_cuts
    from speechft.data.loader import Batches
    from speechft.tasks.build import build_task

    settings = compose("train", words)
    upstream = load_upstream(settings["upstream"])
    cuts = load_cuts(settings["data"]["train"])[0]
    torch.manual_seed(0)
    task = build_task(settings["task"])
    task.prepare(upstream, cuts, None, folder)
    return upstream, task, Batches(cuts, None, 4, 2, seed=0)


def test_masked_prediction_trains_from_the_command(librispeech, tmp_path):
    words = ["task=masked_prediction", "strategy=stable", "data=librispeech", f"data.root={librispeech}",
             "data.batch_size=4", "data.workers=0", "trainer.steps=4", "trainer.log_every=1", "trainer.device=cpu",
             "task.codebooks=[{features: mfcc, clusters: 5}]"]  # fmt: skip
    run = finetune(words, tmp_path / "mp")
    assert any("masked_accuracy" in line for line in read_metrics(run.metrics))


def test_bad_corpora_stop_before_training(train_words, librispeech, tmp_path):
    broken = tmp_path / "corpus"
    shutil.copytree(librispeech, broken)
    next((broken / "train-clean-100").rglob("*.flac")).write_bytes(b"no audio")
    words = [word for word in train_words if not word.startswith("data.root")] + [f"data.root={broken}"]
    with pytest.raises(SpeechFTError, match="cannot be read"):
        finetune(words, tmp_path / "run")
    run = finetune([*words, "data.skip_bad=true", "trainer.steps=2"], tmp_path / "run2")
    assert len((run.folder / "skipped.tsv").read_text().splitlines()) == 1


def test_a_changed_dev_set_is_refused_and_a_refusal_changes_nothing(tmp_path, upstream_folder, librispeech):
    """Scores of two dev sets are no curve; and the labels on disk stay those of the run."""
    from speechft.data.corpora import load_cuts

    rows = []
    for split in ("train-clean-100", "dev-clean"):
        cuts, _ = load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": split}])
        for cut in cuts:
            known = cut.supervisions[0]
            rows.append((str(cut.recording.sources[0].source), known.speaker, known.text, split))

    def table(rows):
        lines = ["path\tspeaker\ttext\tsplit", *("\t".join(row) for row in rows)]
        (tmp_path / "mine.tsv").write_text("\n".join(lines) + "\n")

    words = [
        "data=tsv", f"data.table={tmp_path}/mine.tsv", "task=asr", "task.hidden=32",
        f"upstream.source={upstream_folder}", "data.train_where={split: train-clean-100}",
        "data.dev_where={split: dev-clean}", "data.train_speakers=null", "data.dev_speakers=null", "trainer.steps=4",
        "trainer.checkpoint_every=2", "trainer.eval_every=2", "trainer.device=cpu", "trainer.threads=1",
        "data.workers=0", "data.buckets=2", "data.batch_size=4",
    ]  # fmt: skip
    table(rows)
    run = finetune(words, tmp_path / "run")
    shutil.rmtree(run.finetuned)
    units = (run.folder / "units.json").read_text()
    table(rows[:-1])
    with pytest.raises(UsageError, match=rf"the dev data of .* have changed .*\({len(rows) - 24} utterances then"):
        finetune(words, run.folder)
    longer = [
        (path, who, text if split == "dev-clean" else f"{text} ZZ", split) for path, who, text, split in rows
    ]  # fmt: skip
    table(longer)
    with pytest.raises(UsageError, match=r"the labels of .* have changed"):
        finetune(words, run.folder)
    assert (run.folder / "units.json").read_text() == units
    table(rows)
    assert finetune(words, run.folder).finished


def test_a_refused_command_leaves_no_folder(train_words, tmp_path):
    with pytest.raises(UsageError, match=r"data\.batch_seconds=None and data\.batch_size=None"):
        finetune([*train_words, "data.batch_size=null"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
