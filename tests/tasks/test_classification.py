"""SID, KS, IC, ER: they learn; the head is s3prl's; labels that cannot work are refused in a line."""

import re
from types import SimpleNamespace

import pytest
import torch
from learning import cuts_of, learn, shuffled
from tiny_labelled import make_labelled
from torch.nn.functional import cross_entropy

from speechft.config.locate import read_group
from speechft.data.loader import Batch, read_cut
from speechft.errors import SpeechFTError, UsageError
from speechft.superb import compat
from speechft.tasks.build import build_task
from speechft.tasks.heads import MeanPoolingHead
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("words"), words=1)


@pytest.fixture(scope="module")
def two_words(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("two_words"))


def _task(name, **options):
    return build_task({**read_group("task", name), **options})


@pytest.mark.parametrize(("name", "steps", "reached"), [
    pytest.param("sid", 30, 70, marks=pytest.mark.slow), ("ks", 24, 65),
    pytest.param("ic", 30, 60, marks=pytest.mark.slow), ("er", 48, 80),
])  # fmt: skip
def test_each_task_learns(name, steps, reached, table, two_words, tmp_path):
    source = two_words if name == "sid" else table
    before, after = learn(_task(name), cuts_of(source, "train"), cuts_of(source, "dev"), tmp_path, steps)
    assert before["accuracy"] < 50 and after["accuracy"] >= reached, (before, after)


@pytest.mark.slow
def test_nothing_is_learned_from_other_utterances_labels(table, tmp_path):
    _, after = learn(_task("ks"), shuffled(cuts_of(table, "train")), cuts_of(table, "dev"), tmp_path, 30)
    assert after["accuracy"] < 60, after


@pytest.mark.parametrize("classes", [(4,), (3, 5, 2)])
def test_the_head_is_s3prls(classes):
    """The same weights, the same answers, on a padded batch (s3prl's experts: a projector, then `UtteranceLevel`)."""
    compat.install()
    from s3prl.downstream.model import UtteranceLevel

    torch.manual_seed(0)
    head = MeanPoolingHead(12, 6, sum(classes))
    projector, model = torch.nn.Linear(12, 6), UtteranceLevel(6, sum(classes), pooling="MeanPooling")
    projector.load_state_dict(head.project.state_dict())
    model.post_net.linear.load_state_dict(head.output.state_dict())
    states, frames = torch.randn(3, 20, 12), torch.tensor([20, 7, 1])
    theirs, _ = model(projector(states), frames)
    assert torch.allclose(head(states, frames), theirs, atol=1e-6)
    states[1, 7:] = 1e4  # what stands in the padding does not matter
    assert torch.allclose(head(states, frames), theirs, atol=1e-6)


class Fixed(torch.nn.Module):
    """A head that answers what it was told to."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, states, frames):
        return self.logits


def _prepared(table, tmp_path, labels, **options):
    task = build_task({"kind": "classification", "labels": labels, "hidden": 8, **options})
    cuts = cuts_of(table, "train")
    upstream = load_upstream("hubert_nano")
    task.prepare(upstream, cuts, None, tmp_path)
    return task, upstream, Batch([read_cut(cut) for cut in list(cuts)[:6]], list(cuts)[:6])


def test_the_loss_of_an_intent_is_the_sum_of_its_slots(table, tmp_path):
    task, upstream, batch = _prepared(table, tmp_path, ["action", "object", "location"])
    assert task.classes == {
        "action": ["start", "stop"], "object": ["lights", "music"], "location": ["here", "there"],
    }  # fmt: skip
    logits = torch.randn(6, 6)
    task.head = Fixed(logits)
    loss, _ = task.step(upstream, batch)
    custom = [cut.supervisions[0].custom for cut in batch.cuts]
    expected = 0.0
    for place, (field, names) in enumerate(task.classes.items()):
        right = torch.tensor([names.index(one[field]) for one in custom])
        expected += cross_entropy(logits[:, 2 * place : 2 * place + 2], right)
    assert torch.allclose(loss, expected)


def test_an_utterance_is_right_when_all_its_slots_are(table, tmp_path):
    task, _, _ = _prepared(table, tmp_path, ["action", "object", "location"])
    found = task.summary([[True, True, True], [True, False, True], [False, False, True], [True, True, True]])
    assert found == {"accuracy": 50, "action_accuracy": 75, "object_accuracy": 50, "location_accuracy": 100}


def test_rare_classes_weigh_more(table, tmp_path):
    """torch's own class weights: total / (classes x count)."""
    task, upstream, batch = _prepared(table, tmp_path, "keyword", balanced=True)
    cuts = [SimpleNamespace(id=str(n), supervisions=[SimpleNamespace(speaker=None, custom={"keyword": name})])
            for n, name in enumerate("aaab")]  # fmt: skip
    task.prepare(upstream, cuts, None, tmp_path)
    task.train()
    logits = torch.randn(4, 2)
    task.head = Fixed(logits)
    loss, _ = task.step(upstream, Batch(batch.waves[:4], cuts))
    right, weights = torch.tensor([0, 0, 0, 1]), torch.tensor([4 / 2 / 3, 4 / 2 / 1])
    assert torch.allclose(loss, cross_entropy(logits, right, weights))


def test_training_hears_a_random_piece_and_evaluation_all(table, tmp_path):
    task, _, _ = _prepared(table, tmp_path, "keyword", crop_seconds=0.1)
    heard = []

    def upstream(waves, last_only):
        heard.append([wave.tolist() for wave in waves])
        return SimpleNamespace(last=torch.zeros(len(waves), 1, 256), frames=torch.ones(len(waves)))

    waves = [torch.arange(4000.0), torch.arange(1000.0)]
    batch = Batch(waves, list(cuts_of(table, "train"))[:2])
    for seed in range(20):
        torch.manual_seed(seed)
        task.train().step(upstream, batch)
    starts = {one[0][0] for one in heard}
    assert all(one[0] == list(range(int(one[0][0]), int(one[0][0]) + 1600)) and len(one[1]) == 1000 for one in heard)
    assert len(starts) > 10 and min(starts) < 800 and max(starts) > 1600
    heard.clear()
    task.eval().score(upstream, batch)
    assert [len(one) for one in heard[0]] == [4000, 1000]


def test_labels_that_cannot_work_are_refused_in_a_line(table, tmp_path):
    train, dev, upstream = cuts_of(table, "train"), cuts_of(table, "dev"), load_upstream("hubert_nano")

    def fails(message, labels="keyword", train=train, dev=dev):
        with pytest.raises(SpeechFTError, match=message):
            build_task({"kind": "classification", "labels": labels}).prepare(upstream, train, dev, tmp_path)

    fails("utterance u0 has no colour; choose a corpus with that label, or a table with a column colour", "colour")
    one = train.filter(lambda cut: cut.supervisions[0].speaker == "ann")
    fails("every utterance of the training set has the speaker 'ann'; a classifier needs at least two", "speaker", one)
    two = train.filter(lambda cut: cut.supervisions[0].speaker != "eve")
    fails("the speaker 'eve' of dev utterance u[0-9]+ never occurs in the training set; split by utt", "speaker", two)
    next(iter(dev)).supervisions[0].custom["keyword"] = " "
    fails(re.escape(f"utterance {next(iter(dev)).id} has no keyword"))
    for options, message in (
        ({"labels": []}, r"task.labels is \[\]"), ({"labels": ["a", "a"]}, "task.labels"),
        ({"labels": "speaker", "crop_seconds": 0.0}, "task.crop_seconds is 0.0"), ({}, "labels"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            build_task({"kind": "classification", **options})
