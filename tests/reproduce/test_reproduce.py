"""The plan checked, priced and run, on stand-in corpora in the official layouts and very small upstreams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechft.config.compose import compose
from speechft.files import read_json
from speechft.reproduce import cost, step
from speechft.reproduce.check import Survey
from speechft.reproduce.command import main
from speechft.reproduce.parts import parts_of
from speechft.reproduce.rows import rows
from speechft.reproduce.stand_in import stand_in
from speechft.reproduce.step import StepTime, time_step

SMALL = [
    "train.data.workers=0", "train.trainer.device=cpu", "train.trainer.threads=1", "eval.device=cpu",
    *(f"eval.superb.{task}.{change}" for task in ("asr", "sf") for change in ("project_dim=16", "rnn_dims=[24,16]")),
    *(f"eval.superb.{task}.num_workers=0" for task in ("pr", "asr", "sid", "er", "sf")),
]  # fmt: skip


@pytest.fixture
def words(corpora, checkpoints, tmp_path) -> list[str]:
    """What tells where everything is."""
    given = [f"data.{name}={path}" for name, path in corpora.items()]
    given += [f"upstream.{name}={path}" for name, path in checkpoints.items()]
    return [*given, *SMALL, f"eval.store={tmp_path}/store", "--out", str(tmp_path / "out")]


def told(capsys, *arguments) -> tuple[int, dict]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_dry_run_checks_prices_and_prints(words, capsys, tmp_path):
    code, found = told(capsys, "hubert-asr", "hubert-asr-regular", "--dry-run", "--tasks", "sid", *words)
    assert code == 0 and not found["problems"]
    kinds = [stage["kind"] for stage in found["stages"]]
    assert kinds == ["train", "merge", "eval", "eval", "train", "eval", "report"]
    train = found["stages"][0]
    assert train["seconds"] > 0 and train["disk_bytes"] > 0 and "50000 steps" in train["how"][0]
    assert "with the upstream frozen" in train["how"][0] and "frozen" not in found["stages"][4]["how"][0]
    assert found["stages"][2]["store_bytes"] > 0
    assert found["hours"] == pytest.approx(sum(stage["seconds"] or 0 for stage in found["stages"]) / 3600)
    assert found["hours_complete"] and all(stage["seconds_complete"] for stage in found["stages"])
    assert any("asr: train: 8 utterances, " in note for note in found["notes"])
    assert list(found["deviations"]) == ["all", "paper/asr", "paper/asr_regular", "scoring"]
    assert "checkpoint" in found["deviations"]["all"] and "cnn" in found["deviations"]["paper/asr_regular"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "store").exists()
    assert main(["hubert-asr", "--dry-run", "--no-measure", "--tasks", "sid", *words]) == 0
    text = capsys.readouterr().out
    commands = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("speechft ") for line in commands) and len(commands) == 5
    assert "# nothing is missing" in text and "# all of these rows, checkpoint: the last step" in text


def test_what_is_not_known_is_not_counted_as_nothing(words, capsys):
    """Heads of a hundred steps are not timed."""
    few = ["hubert-sid", "--dry-run", "--tasks", "sid,pr", *words, "eval.superb.pr.steps=100"]
    assert main(few) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("#   pr: the time of its head is not known before it is done") == 2
    partly = [line for line in lines if " and what is not known" in line]
    assert sorted(line.partition("about")[0] for line in partly) == [
        "# hubert-sid: eval, ", "# hubert_base: eval, ", "# in all: ",
    ]  # fmt: skip
    code, found = told(capsys, *few, "--no-measure")
    assert code == 0 and not found["hours_complete"]
    assert {stage["kind"]: (stage["seconds"], stage["seconds_complete"]) for stage in found["stages"]} == {
        "train": (None, False), "merge": (0.0, True), "eval": (None, False), "report": (0.0, True),
    }  # fmt: skip


def test_everything_that_is_missing_is_named(corpora, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "vox").mkdir()
    given = [f"data.librispeech={corpora['librispeech']}", f"data.voxceleb1={tmp_path}/vox", "data.iemocap=/nowhere",
             "upstream.wav2vec2_base=/no/file.pt"]  # fmt: skip
    arguments = ["hubert-asr", "decoar2-er", "wav2vec2-sid", "--no-measure", "--out", str(tmp_path / "out"), *given]
    code, found = told(capsys, "--dry-run", *arguments)
    text = "\n".join(found["problems"])
    assert code == 1
    for phrase in ("data.tedlium3 is not set (trained on by hubert-asr)", "upstream.decoar2 is not set",
                   "upstream.wav2vec2_base=/no/file.pt does not exist", "SUPERB pr: data.lexicon is not set",
                   "data.iemocap=/nowhere does not exist", "SUPERB sf: data.snips is not set", "er: ",
                   "sid: "):  # fmt: skip
        assert phrase in text, phrase
    assert "facebook/hubert-base-ls960 will be fetched" in " ".join(found["notes"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = told(capsys, "--dry-run", *arguments)[1]
    assert "facebook/hubert-base-ls960 was not fetched before, and HF_HUB_OFFLINE is set" in offline["problems"]
    assert "will be fetched" not in " ".join(offline["notes"])
    assert [line.partition(" in ")[0] for line in found["disk"]] == [  # not 0.0 GB
        "runs and merged models: not known", "features: not known",
    ]  # fmt: skip
    assert main(arguments) == 1  # and nothing is begun
    assert "things are missing: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_broken_audio_is_found_before_training(corpora, checkpoints, capsys, tmp_path):
    from stand_ins import make_tedlium3

    make_tedlium3(tmp_path / "ted")
    (tmp_path / "ted/legacy/train/sph/Bea_2010.sph").unlink()
    given = [f"data.tedlium3={tmp_path}/ted", f"data.voxceleb1={corpora['voxceleb1']}", "--out", str(tmp_path / "out"),
             f"upstream.hubert_base={checkpoints['hubert_base']}"]  # fmt: skip
    code, found = told(capsys, "hubert-asr", "--dry-run", "--no-measure", "--tasks", "sid", *given)
    assert code == 1
    (problem,) = found["problems"]
    assert problem.startswith("asr: 5 missing") and "Bea_2010.sph" in problem


def test_a_folder_with_another_normalisation_is_refused(corpora, capsys, tmp_path):
    from small import save_upstream

    folder = save_upstream(tmp_path / "hf")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    given = [f"data.voxceleb1={corpora['voxceleb1']}", f"upstream.hubert_base={folder}", "--out", str(tmp_path / "out")]
    code, found = told(capsys, "hubert-sid", "--dry-run", "--no-measure", "--tasks", "sid", *given)
    assert code == 1 and "do_normalize true, and hubert_base is trained with false" in found["problems"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name, millions", [("hubert_base", 94.4), ("wav2vec2_base", 94.4), ("wavlm_base_plus", 94.4),
                                            ("decoar2", 89.8)])  # fmt: skip
def test_stand_ins_are_as_large_as_the_published_models(name, millions):
    """SUPERB's table 1 counts 94.68 M (HuBERT), 95.04 M (wav2vec 2.0), 89.84 M (DeCoAR 2.0), heads included."""
    from speechft.config.locate import read_group

    upstream = stand_in(read_group("upstream", name))
    assert sum(parameter.numel() for parameter in upstream.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert (upstream.dim, upstream.num_layers, upstream.identity.normalize) == (768, 13, False)


def test_hours_are_steps_times_what_a_step_takes(monkeypatch):
    """By hand: ER's 30 000 steps of 8 batches, a tenth of them with the upstream frozen."""
    times = StepTime(0.1, 0.3, 0.05, 0.001, 18.0, 18.0, (1000, 10, 2000))
    assert times.of_run(30_000, 3_000, 8) == pytest.approx(3_000 * (8 * 0.1 + 0.05) + 27_000 * (8 * 0.3 + 0.05))
    assert times.of_run(100, 3_000, 1) == pytest.approx(100 * 0.15)  # ended before the unfreeze
    monkeypatch.setattr(cost, "time_step", lambda *_: times)
    survey = Survey()
    survey.upstreams["hubert_base"] = object()  # type: ignore[assignment]
    costs = cost.Costs(survey)
    settings = compose("train", ["experiment=paper/multitask_joint", "data.root=/t", "task.tasks.sid.data.root=/v",
                                 "task.tasks.er.data.root=/i"])  # fmt: skip
    whole = cost.Cost(0.0)
    for part in parts_of(settings):
        costs._add(whole, part, settings)
    # three parts of a third each; of the upstream's weights five copies are kept: two and the best with Adam's, θ'
    assert whole.seconds == pytest.approx(5_000 * (3 * 0.1 + 0.05) + 45_000 * (3 * 0.3 + 0.05))
    assert whole.disk == pytest.approx(4 * (3 * (1000 + 10 + 2 * 2000) + 1000))


def test_a_timed_step_is_of_the_rows_batch(checkpoints, monkeypatch):
    """The clock is replaced: every micro-batch takes 2 s a second of its audio."""
    heard = []

    def slow(work, on_cpu):
        work()
        heard.append(work.__name__)
        return {"micro": 16.0, "update": 0.5, "hear": 4.0}[work.__name__]

    monkeypatch.setattr(step, "_median", slow)
    settings = compose("train", ["experiment=paper/sid", "data.root=/x", "trainer.device=cpu",
                                 f"upstream.source={checkpoints['hubert_base']}"])  # fmt: skip
    upstream = stand_in(settings["upstream"])
    found = time_step(settings, upstream, 8.0)
    assert heard == ["micro", "micro", "update", "hear"]
    assert (found.timed, found.audio) == (8.0, 64.0)  # one of eight utterances on a CPU
    assert (found.head, found.full, found.update, found.hear) == (128.0, 128.0, 0.5, 0.5)
    cnn = sum(parameter.numel() for parameter in upstream.parts()["cnn"])
    assert found.parameters[2] == found.parameters[0] - cnn + found.parameters[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upstream", "tasks"),
    [("hubert", "pr,asr,sid,er,sf"), ("wav2vec2", "sid,er"), ("decoar2", "sid,er"), ("wavlm", "sid,er")],
)
def test_every_row_from_dry_run_to_report(upstream, tasks, words, capsys, tmp_path):
    """The whole chain with steps scaled down; what is finished is left alone."""
    names = [name for name in rows() if name.startswith(f"{upstream}-")]
    scaled = [*names, "--scale", "0.0001", "--tasks", tasks, *words]
    code, found = told(capsys, "--dry-run", *scaled)
    assert code == 0, found["problems"]
    assert all(stage["seconds"] for stage in found["stages"] if stage["kind"] == "train")
    assert not any(stage["finished"] for stage in found["stages"])
    assert main(scaled) == 0, capsys.readouterr().err
    capsys.readouterr()
    out = tmp_path / "out"
    scenarios = {rows()[name].scenario for name in names}
    assert {path.name for path in (out / "report").iterdir()} == scenarios
    for scenario in scenarios:
        report = read_json(out / "report" / scenario / "report.json")
        ours = [row for row in report["rows"] if not row["pretrained"]]
        wanted = [name for name in names if rows()[name].scenario == scenario]
        assert len(ours) == len(wanted) and len(report["rows"]) == len(wanted) + 1
        columns = len(tasks.split(",")) + ("sf" in tasks)  # SF has two
        assert all(len(row["cells"]) == columns for row in report["rows"])
        assert all(row["base"] for row in ours), scenario
        # SUPERB_S and published rows are for SUPERB's own test sets; of SF's nobody tells the size, so that this small
        # one is taken for it.
        assert report["superb_s"]["tasks"] == (["sf"] if "sf" in tasks else []), scenario
        assert all((row["superb_s"] is not None) == ("sf" in tasks) for row in ours), scenario
        assert all(row["superb_s"]["difference"] for row in ours if row["superb_s"]), scenario
        published = {row["name"] for row in report["published"]}
        assert ("HuBERT Base, Speech-FT on ASR (paper)" in published) == ("sf" in tasks), scenario
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if "report" not in path.parts}
    code, found = told(capsys, "--dry-run", *scaled)
    assert code == 0 and all(stage["finished"] for stage in found["stages"] if stage["kind"] != "report")
    assert main(scaled) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    capsys.readouterr()
    code, found = told(capsys, "--dry-run", *names[:1], "--scale", "0.001", "--no-measure", "--tasks", "sid", *words)
    assert found["stages"][0]["finished"] is False  # another number of steps is another run


def test_the_script_is_there_to_be_run():
    script = Path(__file__).parents[2] / "scripts" / "reproduce"
    assert "speechft.reproduce" in script.read_text() and script.stat().st_mode & 0o111
