"""One task after the other: each starts from the last one's weights, all merge with the first's θ0."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from speechft.errors import Interrupted, MissingExtraError, SpeechFTError, UsageError
from speechft.files import claimed, read_json
from speechft.merge.merge import merge, merge_run
from speechft.runs import Run, set_latest
from speechft.train.check import check
from speechft.train.finetune import finetune
from speechft.upstreams.load import load_upstream

# SpecAugment's widths are for 768 channels: of 32 it may leave none.
ASR = "{head: linear, specaugment: null}"


@pytest.fixture(scope="module")
def words(train_words):
    return [word for word in train_words if not word.startswith(("task.", "trainer.steps"))]


@pytest.fixture(scope="module")
def chain(words, librispeech, tmp_path_factory):
    tasks = f"{{pr: {{lexicon: {librispeech}/lexicon.txt, hidden: 16, trainer: {{steps: 6}}}}, asr: {ASR}}}"
    more = ["task=sequential", f"task.tasks={tasks}", "trainer.steps=4"]
    return finetune([*words, *more], tmp_path_factory.mktemp("runs") / "chain")


def _weights(folder):
    return load_file(folder / "model.safetensors")


def _same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_each_starts_where_the_last_one_ended(chain, upstream_folder):
    first, second = chain.folder / "1-pr", chain.folder / "2-asr"
    start = load_upstream(upstream_folder).identity.sha256
    ended = load_upstream(first / "finetuned").identity.sha256
    assert read_json(first / "pretrained.json")["sha256"] == start != ended
    assert "started_from" not in read_json(first / "pretrained.json")
    record = read_json(second / "pretrained.json")
    assert record["sha256"] == start and record["source"] == str(upstream_folder)
    assert record["started_from"]["sha256"] == ended and record["started_from"]["run"] == str(first)
    assert read_json(chain.pretrained) == record
    assert _same(_weights(chain.finetuned), _weights(second / "finetuned"))
    assert not _same(_weights(chain.finetuned), _weights(first / "finetuned"))
    stages = [line.split('"stage": "')[1].split('"')[0] for line in chain.metrics.read_text().splitlines()]
    assert stages == sorted(stages, key=["pr", "asr"].index) and set(stages) == {"pr", "asr"}
    assert [sum('"loss"' in line for line in chain.metrics.read_text().splitlines() if f'"{name}"' in line)
            for name in ("pr", "asr")] == [6, 4]  # fmt: skip


def test_the_result_merges_with_the_first_model(chain, upstream_folder):
    merged = merge_run(chain, [0.25])[0]
    origin, tuned, result = _weights(upstream_folder), _weights(chain.finetuned), _weights(merged.folder)
    for key, value in origin.items():
        if value.is_floating_point():
            torch.testing.assert_close(result[key], value + 0.25 * (tuned[key] - value), rtol=1e-6, atol=1e-7)


def test_the_same_by_hand(chain, words, tmp_path):
    """`after=` a run is the chain's second part, bit for bit; again it is left alone, as any finished run."""
    more = [
        "task=asr",
        "task.head=linear",
        "task.specaugment=null",
        "trainer.steps=4",
        f"after={chain.folder / '1-pr'}",
    ]
    run = finetune([*words, *more], tmp_path / "by_hand")
    assert _same(_weights(run.finetuned), _weights(chain.finetuned))
    record = read_json(run.pretrained)
    assert {**record, "versions": None} == {**read_json(chain.pretrained), "versions": None}
    assert finetune([*words, *more], run.folder).folder == run.folder


def test_after_the_latest_run_typed_again(chain, words, tmp_path, monkeypatch):
    """The latest run is then the one that was begun, but what was meant is the one it began from."""
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    set_latest(chain.folder / "1-pr")
    again = [
        *words,
        "task=asr",
        "task.head=linear",
        "task.specaugment=null",
        "trainer.steps=4",
        f"after={tmp_path / 'latest'}",
    ]
    run = finetune(again, tmp_path / "run")
    assert (tmp_path / "latest").resolve() == run.folder
    (run.finetuned / "model.safetensors").unlink()  # as if interrupted
    assert _same(_weights(finetune(again, run.folder).finetuned), _weights(chain.finetuned))
    assert read_json(run.pretrained)["started_from"]["run"] == str(chain.folder / "1-pr")
    with pytest.raises(UsageError, match="is this run itself; name the run to start from"):
        finetune([*words, f"after={chain.folder / '1-pr'}"], chain.folder / "1-pr")


def test_after_the_latest_run_typed_again_without_out(chain, words, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    set_latest(chain.folder / "1-pr")
    task = ["task=asr", "task.head=linear", "task.specaugment=null", "trainer.steps=4", "trainer.checkpoint_every=2"]
    again = [*words, *task, f"after={tmp_path / 'latest'}"]
    run = finetune(again)
    assert (tmp_path / "latest").resolve() == run.folder and run.folder.parent == tmp_path
    shutil.rmtree(run.finetuned)
    shutil.rmtree(run.checkpoints / "step-4")
    other = [word.replace("steps=4", "steps=3") for word in again]
    with pytest.raises(SpeechFTError, match=f"{run.folder} is not finished; run its train command again"):
        finetune(other)
    assert finetune(again).folder == run.folder
    assert _same(_weights(run.finetuned), _weights(chain.finetuned))
    assert read_json(run.pretrained)["started_from"]["run"] == str(chain.folder / "1-pr")


def test_without_out_the_same_command_goes_on(chain, words, librispeech, tmp_path, monkeypatch, capfd):
    """Stopped in its first part."""
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    asked = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr("speechft.train.loop.StopSignal.asked", asked, raising=False)
    part = f"lexicon: {librispeech}/lexicon.txt, hidden: 16, trainer: {{steps: 6}}"
    more = ["task=sequential", f"task.tasks={{pr: {{{part}}}, asr: {ASR}}}", "trainer.steps=4"]
    with pytest.raises(Interrupted) as stopped:
        finetune([*words, *more])
    monkeypatch.undo()
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path))
    (folder,) = [path for path in tmp_path.iterdir() if not path.is_symlink()]
    assert str(folder) in str(stopped.value) and (folder / "sequence.yaml").is_file()
    run = finetune([*words, *more])
    assert run.folder == folder and f"{folder} was interrupted" in capfd.readouterr().err
    assert _same(_weights(run.finetuned), _weights(chain.finetuned)) and not (folder / "sequence.yaml").exists()


def test_a_mistake_in_the_first_part_leaves_no_folder(words, tmp_path):
    more = ["task=sequential", f"task.tasks={{pr: {{lexicon: {tmp_path}/none.txt}}, asr: {ASR}}}", "trainer.steps=2"]
    with pytest.raises(SpeechFTError, match=r"none\.txt"):
        finetune([*words, *more], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sequence_is_trained_by_one(words, tmp_path):
    run = Run(tmp_path / "run")
    more = ["task=sequential", f"task.tasks={{asr: {ASR}}}", "trainer.steps=2"]
    with claimed(run.lock), pytest.raises(SpeechFTError, match="is being trained by another process"):
        run.sequence.touch()
        finetune([*words, *more], run.folder)
    assert run.sequence.exists()


def test_a_finished_chain_is_left_alone_and_a_changed_one_refused(chain, words, librispeech):
    before = chain.metrics.read_text()
    tasks = f"{{pr: {{lexicon: {librispeech}/lexicon.txt, hidden: 16, trainer: {{steps: 6}}}}, asr: {ASR}}}"
    more = ["task=sequential", f"task.tasks={tasks}"]
    assert finetune([*words, *more, "trainer.steps=4"], chain.folder).metrics.read_text() == before
    with pytest.raises(UsageError, match=r"trainer.steps: 4 -> 5"):
        finetune([*words, *more, "trainer.steps=5"], chain.folder)


def test_a_mistake_in_a_later_part_can_be_mended(words, tmp_path):
    def train(hidden):
        tasks = f"{{asr: {{head: linear}}, second: {{task: asr, head: linear, hidden: {hidden}, units: runes}}}}"
        tasks = tasks.replace("runes", "characters") if hidden == 8 else tasks
        return finetune([*words, "task=sequential", f"task.tasks={tasks}", "trainer.steps=2"], tmp_path / "chain")

    with pytest.raises(UsageError, match="unknown units 'runes'"):
        train(4)
    first = (tmp_path / "chain" / "1-asr" / "metrics.jsonl").read_text()
    assert train(8).finished
    assert (tmp_path / "chain" / "1-asr" / "metrics.jsonl").read_text() == first  # not trained again


def test_begun_parts_keep_their_places(words, tmp_path):
    def train(*names):
        tasks = ", ".join(f"{name}: {{task: asr, head: linear}}" for name in names)
        return finetune([*words, "task=sequential", f"task.tasks={{{tasks}}}", "trainer.steps=2"], tmp_path / "chain")

    first = train("one", "two")
    shutil.rmtree(first.finetuned)
    for name in ("config.yaml", "pretrained.json", "metrics.jsonl"):
        (first.folder / name).unlink()
    shutil.rmtree(first.folder / "2-two")  # as where it was stopped in between
    with pytest.raises(UsageError, match=r"holds 1-one, and these parts are 1-two, 2-one; choose another --out"):
        train("two", "one")
    assert train("one", "two").finished


def test_an_interruption_names_the_folder_of_the_whole(words, tmp_path, monkeypatch):
    from speechft.train import loop

    monkeypatch.setattr(loop.StopSignal, "asked", property(lambda self: True, lambda self, value: None), raising=False)
    more = ["task=sequential", "task.tasks={one: {task: asr, head: linear}}", "trainer.steps=3"]
    with pytest.raises(
        Interrupted, match=rf"after step 1 of 1-one; the same command goes on from there, in {tmp_path}/chain$"
    ):
        finetune([*words, *more], tmp_path / "chain")


def test_mistakes_are_explained(words, chain, tmp_path):
    with pytest.raises(UsageError, match="is no run's folder"):
        finetune([*words, f"after={tmp_path}"], tmp_path / "a")
    (tmp_path / "begun").mkdir()
    for name in ("config.yaml", "pretrained.json"):
        (tmp_path / "begun" / name).write_bytes((chain.folder / name).read_bytes())
    with pytest.raises(SpeechFTError, match="begun is not finished"):
        finetune([*words, f"after={tmp_path / 'begun'}"], tmp_path / "b")
    with pytest.raises(UsageError, match=r"task.tasks.asr has unknown keys: share; known: .*trainer"):
        finetune([*words, "task=sequential", "task.tasks={asr: {share: 2}}"], tmp_path / "c")


def test_one_upstream_for_each_task_merged(chain, words, upstream_folder, tmp_path):
    """Two runs from one θ0, merged by hand: θ0 + α times the mean of both updates."""
    other = finetune(
        [*words, "task=asr", "task.head=linear", "task.specaugment=null", "trainer.steps=4", "seed=3"], tmp_path / "asr"
    )
    first = chain.folder / "1-pr" / "finetuned"
    merged = merge(upstream_folder, [first, other.finetuned], [0.5], out=tmp_path / "merged")[0]
    origin, one, two, result = (_weights(folder) for folder in (upstream_folder, first, other.finetuned, merged.folder))
    for key, value in origin.items():
        if value.is_floating_point():
            expected = value + 0.5 * ((one[key] - value) + (two[key] - value)) / 2
            torch.testing.assert_close(result[key], expected, rtol=1e-6, atol=1e-7)


def test_check_looks_at_every_part(words, librispeech, tmp_path):
    short = tmp_path / "short.tsv"
    audio = next((librispeech / "train-clean-100").rglob("*.flac"))
    short.write_text(f"id\tpath\ttext\ngood\t{audio}\tA B\nbad\t{audio}\t\n", encoding="utf-8")
    table = f"data: {{use: tsv, table: {short}, train_speakers: null, dev: null, root: null}}"
    tasks = f"{{pr: {{lexicon: {librispeech}/lexicon.txt, hidden: 16}}, asr: {{head: linear, {table}}}}}"
    found = check([*words, "task=sequential", f"task.tasks={tasks}"], tmp_path / "out")
    assert list(found["parts"]) == ["pr", "asr"]
    assert found["bad"] == {"label": 1} == found["parts"]["asr"]["bad"] and not found["parts"]["pr"]["bad"]
    assert found["parts"]["asr"]["listing"] == str(tmp_path / "out" / "2-asr" / "bad.tsv")
    assert [line for line in found["lines"] if not line.startswith(" ")] == ["1-pr:", "2-asr:"]
    assert not (tmp_path / "out" / "1-pr" / "config.yaml").exists()


def test_check_names_the_part_before_any_data(words, tmp_path):
    tasks = "{pr: {}, asr: {trainer: {steps: 0}}}"
    with pytest.raises(UsageError, match=r"^task\.tasks\.asr: trainer\.steps is 0"):
        check([*words, "task=sequential", f"task.tasks={tasks}", "data.root=/nowhere"], tmp_path / "out")


def test_an_error_of_a_part_keeps_its_kind():
    found = MissingExtraError("lhotse", "data", "this").of("task.tasks.sid")
    assert type(found) is MissingExtraError and str(found).startswith("task.tasks.sid: this needs lhotse")
