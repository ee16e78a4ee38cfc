"""SF: labels from text and slots, what it learns, what it refuses."""

import pytest
from learning import cuts_of, learn, shuffled
from tiny_labelled import make_labelled

from speechft.config.locate import read_group
from speechft.errors import SpeechFTError
from speechft.tasks.build import build_task
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("slots"))


def _task():
    return build_task({**read_group("task", "sf"), "head": "linear", "specaugment": None})


@pytest.mark.slow
def test_slots_are_learned(table, tmp_path):
    before, after = learn(_task(), cuts_of(table, "train"), cuts_of(table, "dev"), tmp_path, 120, lr=1e-3)
    assert before["slot_type_f1"] < 40 and after["slot_type_f1"] > 55 and after["slot_value_cer"] < 75, (before, after)


@pytest.mark.slow
def test_nothing_is_learned_from_other_utterances_labels(table, tmp_path):
    _, after = learn(_task(), shuffled(cuts_of(table, "train")), cuts_of(table, "dev"), tmp_path, 120, lr=1e-3)
    assert after["slot_type_f1"] < 50 and after["slot_value_cer"] > 75, after


def test_labels_are_characters_and_slots(table, tmp_path):
    task, cuts = _task(), cuts_of(table, "train")
    task.prepare(load_upstream("hubert_nano"), cuts, None, tmp_path)
    cut = next(cut for cut in cuts if cut.supervisions[0].text.startswith("GO AB"))
    assert task.label(cut) == [*"GO", " ", "B-artist", *"AB", "E-artist"]
    assert set(task.vocabulary) >= {"<blank>", " ", "'", "Z", "B-artist", "E-artist", "B-genre", "E-genre"}
    assert len(task.vocabulary) == 1 + 28 + 4


def test_labels_that_cannot_work_are_refused_in_a_line(table, tmp_path):
    upstream, cuts = load_upstream("hubert_nano"), cuts_of(table, "train")
    cut = next(iter(cuts))
    cut.supervisions[0].custom["slots"] = "O"
    with pytest.raises(SpeechFTError, match=r"u0 has 2 words with 1 slots: .*; give each word its slot, or O"):
        _task().prepare(upstream, cuts, None, tmp_path)
    del cut.supervisions[0].custom["slots"]
    with pytest.raises(SpeechFTError, match="utterance u0 has no slots; choose a corpus with that label"):
        _task().prepare(upstream, cuts, None, tmp_path)
    dev = cuts_of(table, "dev")
    next(iter(dev)).supervisions[0].custom["slots"] = "date O"
    with pytest.raises(SpeechFTError, match=r"units that the training set lacks: \['B-date', 'E-date'\]"):
        _task().prepare(upstream, cuts_of(table, "train"), dev, tmp_path)


def test_slot_filling_trains_in_the_loop(tmp_path, upstream_folder):
    """Its metric is slot type F1, by which the best is chosen."""
    table = make_labelled(tmp_path / "data", 12, 6)
    run = finetune(
        [f"upstream.source={upstream_folder}", "upstream.name=tiny", "task=sf", "task.head=linear",
         "task.specaugment=null", "data=tsv", f"data.table={table}", "data.train_speakers=null",
         "data.dev_speakers=null", "data.train_where={split: train}", "data.dev_where={split: dev}",
         "data.batch_size=4", "data.workers=0", "trainer.steps=2", "trainer.eval_every=1", "trainer.device=cpu",
         "strategy=regular", "trainer.finetuned=best"],
        tmp_path / "run",
    )  # fmt: skip
    assert all("dev_slot_type_f1" in line for line in read_metrics(run.metrics) if "dev_slot_value_cer" in line)
    assert run.finished
