"""Joint streams: shares, order, places; whose cuts are whose."""

import pytest

from speechft.config.compose import compose
from speechft.data.corpora import load_cuts
from speechft.data.joint import JointBatches, cuts_of, data_section, read_parts, stream, task_of
from speechft.data.loader import Batches, take
from speechft.errors import SpeechFTError, UsageError


def _settings(librispeech, tasks, *more):
    words = ["task=joint", f"task.tasks={tasks}", "data=librispeech", f"data.root={librispeech}", "data.workers=0"]
    return compose("train", [*words, *more])


def _cuts(settings):
    return load_cuts(data_section(settings)["train"])[0]


def test_tasks_share_the_runs_corpora_or_have_their_own(librispeech):
    other = f"{{use: librispeech, root: {librispeech}, batch_size: 3}}"
    settings = _settings(librispeech, f"{{pr: {{}}, asr: {{}}, sid: {{data: {other}}}}}", "data.batch_size=5")
    data, parts = data_section(settings), read_parts(settings["task"]["tasks"])
    assert [(source["task"], source["split"]) for source in data["train"]] == [
        ("pr", "train-clean-100"), ("asr", "train-clean-100"), ("sid", "train-clean-100"),
    ]  # fmt: skip
    assert [source["task"] for source in data["dev"]] == ["pr", "asr", "sid"]
    assert data["batch_size"] == 5 and parts["sid"].data["batch_size"] == 3
    cuts = _cuts(settings)
    assert len(cuts) == 3 * 24 and len({cut.id for cut in cuts}) == 3 * 24
    assert [cut.id for cut in cuts_of(cuts, "sid")] == [f"sid:{cut.id[3:]}" for cut in cuts_of(cuts, "pr")]
    assert all(task_of(cut) == cut.id.split(":")[0] for cut in cuts)
    assert data_section(compose("train", [])) == compose("train", [])["data"]  # other tasks' data is left alone


def test_shares_are_kept_and_each_tasks_batches_are_its_own_in_order(librispeech):
    settings = _settings(librispeech, "{pr: {share: 3}, sid: {share: 1, data: {batch_size: 3}}}")
    cuts = _cuts(settings)
    joint = stream(settings["task"])(cuts, None, 4, 2, 7)
    drawn = [[cut.id for cut in batch.cuts] for batch in take(joint, 200)]
    owners = ["pr" if ids[0].startswith("pr:") else "sid" for ids in drawn]
    assert all({id.split(":")[0] for id in ids} == {owner} for ids, owner in zip(drawn, owners, strict=True))
    assert owners[:100].count("pr") == 75 and owners[100:].count("pr") == 75  # exact, in a random order
    assert owners[:100] != owners[100:] and owners[:75] != ["pr"] * 75
    for name, size in (("pr", 4), ("sid", 3)):
        alone = Batches(cuts_of(cuts, name), None, size, 2, 7)
        own = [ids for ids, owner in zip(drawn, owners, strict=True) if owner == name]
        assert own == [[cut.id for cut in batch.cuts] for batch in take(alone, len(own))]


@pytest.mark.parametrize("place", [0, 3, 99, 100, 137])
def test_a_place_is_found_again(librispeech, place):
    settings = _settings(librispeech, "{pr: {}, sid: {share: 2}}")
    cuts, make = _cuts(settings), stream(settings["task"])
    whole = take(make(cuts, None, 4, 2, 7), place + 10)
    first = make(cuts, None, 4, 2, 7)
    take(first, place)
    second = make(cuts, None, 4, 2, 7)
    second.restore(first.state())
    assert [batch.cuts for batch in take(second, 10)] == [batch.cuts for batch in whole[place:]]


def test_the_order_follows_from_the_seed(librispeech):
    settings = _settings(librispeech, "{pr: {}, sid: {}}")
    cuts = _cuts(settings)
    orders = [[task_of(batch.cuts[0]) for batch in take(stream(settings["task"])(cuts, None, 4, 2, seed), 40)]
              for seed in (0, 0, 1)]  # fmt: skip
    assert orders[0] == orders[1] != orders[2]


def test_mistakes_are_explained(librispeech):
    for tasks, message in (
        ("{}", "task.tasks names no task"), ("{pr: {share: 0}}", "task.tasks.pr.share is 0"),
        ("{pr: {weight: much}}", "task.tasks.pr.weight is 'much'"), ("{prr: {}}", "unknown task 'prr'"),
        ("{pr: {lexikon: x}}", "task.tasks.pr has unknown keys: lexikon; known: .*lexicon"),
        ("{pr: {data: {use: librispeech}}}", "task.tasks.pr.data: data.root has no value"),
        ("{pr: {data: librispeech}}", "task.tasks.pr.data is 'librispeech'"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            data_section(_settings(librispeech, tasks))
    cuts, _ = load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean", "task": "pr"}])
    with pytest.raises(SpeechFTError, match=r"no training data for sid; give task.tasks.sid.data, or data"):
        JointBatches(cuts, read_parts({"pr": {}, "sid": {}}), None, 4, 2, 0)
    plain, _ = load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean"}])
    with pytest.raises(SpeechFTError, match="belongs to none of the tasks"):
        cuts_of(plain, "pr")


def test_two_processes_share_the_one_stream(librispeech):
    """What two processes read in a step, one reads in two: over the end of a round, and from any place on."""
    settings = _settings(librispeech, "{pr: {share: 2}, sid: {data: {batch_size: 3}}}")
    cuts, make = _cuts(settings), stream(settings["task"])
    one = [batch.cuts for batch in take(make(cuts, None, 4, 2, 5), 120)]
    for rank in (0, 1):
        own = make(cuts, None, 4, 2, 5, rank, 2)
        assert [batch.cuts for batch in take(own, 55)] == one[rank:110:2]
        later = make(cuts, None, 4, 2, 5, rank, 2)
        later.restore(own.state())
        assert [batch.cuts for batch in take(later, 5)] == one[110 + rank :: 2]
