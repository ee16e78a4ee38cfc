"""Spin: targets and loss against the definitions, in float64 and by hand; what it learns."""

import math

import numpy as np
import pytest
import torch
from learning import cuts_of, learn
from safetensors.torch import load_file
from tiny_labelled import make_labelled

from speechft.data.loader import Batch, read_cut
from speechft.errors import UsageError
from speechft.tasks.build import build_task
from speechft.tasks.spin import Spin, sinkhorn
from speechft.train.finetune import finetune
from speechft.upstreams.load import load_upstream


def _by_definition(cosines, epsilon, iterations):
    """SwAV's appendix A.1 as written there, in numpy float64: a matrix of total 1 with marginals 1/K and 1/B."""
    plan = np.exp(np.asarray(cosines, dtype=np.float64) / epsilon).T
    plan /= plan.sum()
    words, frames = plan.shape
    for _ in range(iterations):
        plan /= plan.sum(1, keepdims=True) * words
        plan /= plan.sum(0, keepdims=True) * frames
    return (plan * frames).T


def test_targets_are_sinkhorns():
    cosines = 2 * torch.rand(40, 7, generator=torch.Generator().manual_seed(0)) - 1
    for iterations in (1, 3):
        expected = _by_definition(cosines, 0.05, iterations)
        np.testing.assert_allclose(sinkhorn(cosines, 0.05, iterations), expected, rtol=1e-5, atol=1e-12)
    settled = sinkhorn(cosines, 0.3, 200)
    torch.testing.assert_close(settled.sum(1), torch.ones(40))
    torch.testing.assert_close(settled.sum(0), torch.full((7,), 40 / 7))  # full use of the code book


def test_targets_survive_what_overflows():
    cosines = torch.full((6, 3), -1.0)
    cosines[0, 0] = 1.0
    assert torch.isfinite(sinkhorn(cosines, 0.005, 3)).all()


def test_the_loss_is_the_papers():
    """Written out frame by frame and code word by code word."""
    task = Spin(codewords=4, temperature=0.1, epsilon=0.05)
    first, second = 2 * torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(1)) - 1
    loss, _, _ = task._compare(first, second)
    q = [_by_definition(part, 0.05, 3) for part in (first, second)]
    expected = 0.0
    for mine, other in ((0, 1), (1, 0)):
        cosines = (first, second)[mine].double().numpy()
        for frame in range(5):
            scores = np.exp(cosines[frame] / 0.1)
            for word in range(4):
                expected -= q[other][frame, word] * math.log(scores[word] / scores.sum()) / (2 * 5)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("spin"))


def _task(**options):
    return build_task({"kind": "spin", "codewords": 16, "dim": 32, **options})


def test_frames_of_padding_do_not_count_and_hearings_stay_paired(table, tmp_path):
    """Without another voice both hearings are the same, frame by frame, whatever the batch is padded with."""
    task, upstream = _task(pitch_range=1.0, formant_range=1.0, channel_strength=0.0), load_upstream("hubert_nano")
    torch.manual_seed(0)
    task.prepare(upstream, None, None, tmp_path)
    waves = [read_cut(cut) for cut in list(cuts_of(table, "train"))[:3]]
    waves[1] = waves[1][:3000]
    with torch.no_grad():
        first, second = task._cosines(upstream, waves)
        frames = upstream.frame_counts(torch.tensor([len(wave) for wave in waves]))
        alone, _ = task._cosines(upstream, waves[1:2])
    assert first.shape == (int(frames.sum()), 16) and torch.equal(first, second)
    torch.testing.assert_close(first[frames[0] : frames[0] + frames[1]], alone, atol=1e-4, rtol=1e-4)
    assert first.abs().max() <= 1 + 1e-5


def test_code_words_keep_length_one(table, tmp_path):
    task, upstream = _task(), load_upstream("hubert_nano")
    task.prepare(upstream, None, None, tmp_path)
    with torch.no_grad():
        task.codebook.weight.mul_(3.0)
    cuts = list(cuts_of(table, "train"))[:2]
    loss, figures = task.step(upstream, Batch([read_cut(cut) for cut in cuts], cuts))
    assert torch.allclose(task.codebook.weight.norm(dim=1), torch.ones(16))
    assert loss.requires_grad and 1 <= figures["perplexity"] <= 16 and 0 <= figures["spin_accuracy"] <= 100


def test_it_learns_what_both_voices_share(table, tmp_path):
    """The loss falls well below chance, all but a few code words are used, and frames of the two voices come nearer."""
    task, dev = _task(), cuts_of(table, "dev")
    waves = [read_cut(cut) for cut in dev]

    def nearness(upstream):
        """Cosine of a frame's code-word similarities in both voices, less that of frames that do not belong."""
        torch.manual_seed(1)
        with torch.no_grad():
            first, second = task.eval()._cosines(upstream.eval(), waves)
        same = torch.cosine_similarity(first, second).mean()
        return float(same - torch.cosine_similarity(first, second.roll(37, 0)).mean())

    found = []
    before, after = learn(task, cuts_of(table, "train"), dev, tmp_path, 30, lr=2e-4, head_lr=2e-3,
                          check=lambda upstream: found.append(nearness(upstream)))  # fmt: skip
    assert after["spin_loss"] < 0.75 * before["spin_loss"] and after["spin_accuracy"] > before["spin_accuracy"]
    assert after["perplexity"] > 4 and found[0] > 0.2


def test_impossible_settings_are_refused():
    for option in ({"codewords": 1}, {"temperature": 0.0}, {"iterations": 0}, {"pitch_range": 0.5}):
        with pytest.raises(UsageError):
            build_task({"kind": "spin", **option})


def test_the_last_layers_alone_can_be_trained_from_the_command(train_words, upstream_folder, tmp_path):
    words = [word for word in train_words if not word.startswith(("task.", "trainer.steps"))]
    more = [
        "task=spin",
        "task.codewords=8",
        "trainer.steps=4",
        "strategy.frozen_parts=[cnn,projection,position,layers.0]",
    ]
    run = finetune([*words, *more], tmp_path / "spin")
    before, after = (load_file(folder / "model.safetensors") for folder in (upstream_folder, run.finetuned))
    changed = {".".join(key.split(".")[:3]) for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"encoder.layers.1"}
