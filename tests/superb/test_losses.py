"""Training losses without records against s3prl's experts; the step that a NaN gradient skips."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
import torch

from speechft.errors import SpeechFTError
from speechft.superb import compat
from speechft.superb.assemble import assemble
from speechft.superb.batches import weigh
from speechft.superb.quiet import quiet
from speechft.superb.records import seed_all
from speechft.superb.store import FeatureStore
from speechft.superb.tasks import get_task
from speechft.superb.tasks.losses import padded


def assembled(task, configuration, corpora, upstream, folder, **recipe):
    compat.install()
    cfg = configuration({"steps": 12, "eval_step": 6, **recipe})
    settings = cfg["superb"][task.name]
    with quiet(folder / "log"), task.environment(folder):
        return assemble(
            task, settings, corpora.data, upstream, FeatureStore(folder / "store"), folder / "expert",
            seed=3, device=torch.device("cpu"), frames_dtype="float32", batch_seconds=4.0, budget_gb=1.0,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["ks", "sid", "ic", "er", "pr", "sf", "asr"])
def test_losses_and_gradients_are_the_experts(name, configuration, corpora, upstream, tmp_path):
    task = get_task(name).variant("fold2") if name == "er" else get_task(name)
    run = assembled(task, configuration, corpora, upstream, tmp_path, batch_size=3)
    split, expert = run.splits["train"], run.expert.train()
    for indices, _ in zip(split.draw(), range(3), strict=False):
        rows, counts, others = split.look_up(indices)
        found = []
        for short in (True, False):
            seed_all(5)  # dropout
            run.featurizer.zero_grad()
            expert.zero_grad()
            summed = weigh(run.featurizer, rows)
            if short:
                loss = task.train_loss(expert, summed, counts, others)
            else:
                loss = expert("train", list(summed.split(counts)), *others, records=defaultdict(list))
            loss.backward()
            grads = [p.grad.clone() for module in (run.featurizer, expert) for p in module.parameters()]
            found.append((float(loss.detach()), grads))
        (ours, own_grads), (theirs, their_grads) = found
        assert ours == pytest.approx(theirs, rel=1e-6) and ours > 0.1
        for one, other in zip(own_grads, their_grads, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6) and other.abs().sum() > 0


def losses_of(run, spoil=None):
    """Train; `spoil` is called with every update's step and the parameters, between backward and optimizer."""
    losses: list[float] = []
    run.on_loss = lambda step, loss: losses.append(loss)
    update, weights = run._update, {}

    def spoiled(head, loss, step):
        before = [parameter.detach().clone() for parameter in head.parameters]
        if spoil is not None:
            loss = spoil(step, head, loss)
        update(head, loss, step)
        weights[step] = not all(torch.equal(a, b) for a, b in zip(before, head.parameters, strict=True))

    run._update = spoiled
    run.train()
    return losses, weights


@pytest.mark.parametrize("waits", [True, False])
def test_a_nan_gradient_skips_its_step(waits, configuration, corpora, upstream, tmp_path):
    def spoil(step, head, loss):
        if step == 4:
            head.parameters[0].grad[0] = math.nan
        return loss

    plain, _ = losses_of(assembled(get_task("ks"), configuration, corpora, upstream, tmp_path / "plain"))
    run = assembled(get_task("ks"), configuration, corpora, upstream, tmp_path)
    run.waits = waits
    losses, moved = losses_of(run, spoil)
    assert [step for step, has in moved.items() if not has] == [4]
    assert losses[:4] == plain[:4] and losses[5:] != plain[5:] and not any(map(math.isnan, losses))
    steps = {float(state["step"]) for state in run.heads[0].optimizer.state.values()}
    assert steps == {11.0}  # as if the step had not been


def test_deciding_on_the_device_changes_nothing(configuration, corpora, upstream, tmp_path):
    found = []
    for waits in (True, False):
        run = assembled(get_task("sid"), configuration, corpora, upstream, tmp_path / str(waits))
        run.waits = waits
        found.append(losses_of(run)[0])
    assert found[0] == found[1] and len(set(found[0])) > 3


def test_a_nan_loss_is_noticed_without_waiting(configuration, corpora, upstream, tmp_path):
    run = assembled(get_task("ks"), configuration, corpora, upstream, tmp_path, log_step=3, lr=1e30)
    run.waits = False
    with pytest.raises(SpeechFTError, match=r"the loss of ks is NaN at step (3|6|9|12); lower superb.ks.lr"):
        run.train()


def test_padded_rows_and_their_gradient_are_torchs():
    rows = [torch.randn(count, 5) for count in (3, 7, 1)]
    pull, found = torch.randn(3, 7, 5), []
    for pad in (padded, lambda given: torch.nn.utils.rnn.pad_sequence(given, batch_first=True)):
        given = [row.clone().requires_grad_() for row in rows]
        whole = pad(given)
        (whole * pull).sum().backward()
        found.append([whole.detach(), *(row.grad for row in given)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))
