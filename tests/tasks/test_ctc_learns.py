"""PR and ASR train and improve their own metric; with the labels of other utterances they do not."""

import pytest
from learning import cuts_of, learn, shuffled
from tiny_labelled import make_labelled

from speechft.config.locate import read_group
from speechft.tasks.build import build_task


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "lexicon.txt").write_text("GO G OW\nAB AE B\nJZ JH Z\nUP AH P\n")
    return make_labelled(folder)


def _task(name, table):
    changed = {"head": "linear", "specaugment": None, "lexicon": None}
    return build_task({**read_group("task", name), **changed, **(
        {"lexicon": str(table.parent / "lexicon.txt")} if name == "pr" else {})})  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "metric", "reached"), [("pr", "per", 60), ("asr", "cer", 50)])
def test_it_learns_but_not_from_other_utterances_labels(name, metric, reached, table, tmp_path):
    train, dev = cuts_of(table, "train"), cuts_of(table, "dev")
    before, after = learn(_task(name, table), train, dev, tmp_path, 120, lr=1e-3)
    assert before[metric] > 90 and after[metric] < reached, (before, after)
    _, other = learn(_task(name, table), shuffled(train), dev, tmp_path, 120, lr=1e-3)
    assert other[metric] > reached + 5, other
