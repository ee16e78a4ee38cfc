"""From the Python call to the JSON files."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from listener import Listener
from tiny_corpora import save_upstream

from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json
from speechft.report.recipes import differences, recipe
from speechft.superb.evaluate import evaluate
from speechft.superb.sources import model_name, named


def test_importing_the_package_is_light():
    code = (
        "import sys, speechft.superb, speechft.superb.evaluate; print('torch' in sys.modules, 's3prl' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_three_tasks_end_to_end(engine, configuration, upstream_folder, upstream, tmp_path, capfd):
    listener = Listener()
    results = evaluate([upstream_folder], engine=engine, cfg=configuration(), progress=listener)
    assert capfd.readouterr() == ("", "")  # stdout belongs to the command's results
    assert [result["task"] for result in results] == ["pr", "sid", "ks"]
    for result in results:
        folder = tmp_path / "out" / "tiny"
        assert read_json(folder / f"{result['task']}.json") == result
        assert result["upstream"] == upstream.identity.as_dict()
        assert (result["engine"], result["steps"], result["seed"], result["lr"]) == (engine, 6, 1337, 1e-2)
        assert {"speechft", "s3prl", "torch", "transformers"} == set(result["versions"])
        assert sum(result["layer_weights"]) == pytest.approx(1) and len(result["layer_weights"]) == 4
        assert list(result["metrics"]) == [result["metric"]] and result["dev"]["step"] in (3, 6)
        lines = [json.loads(line) for line in (folder / f"{result['task']}.utterances.jsonl").open()]
        assert len(lines) == result["test_utterances"] == {"pr": 4, "sid": 4, "ks": 12}[result["task"]]
        if result["metric"] == "per":
            score = sum(line["errors"] for line in lines) / sum(line["length"] for line in lines)
        else:
            score = sum(line["correct"] for line in lines) / len(lines)
        assert score == pytest.approx(result["metrics"][result["metric"]])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    again = Listener()
    assert evaluate([upstream_folder], engine=engine, cfg=configuration(), progress=again) == results
    assert again.text.count("finished before") == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")} == before
    changed = configuration(seed=3, tasks=["sid"])
    assert evaluate([upstream_folder], engine=engine, cfg=changed, progress=again)[0]["seed"] == 3


def test_features_are_made_once_per_weights(configuration, upstream_folder, tmp_path):
    cfg = configuration(tasks="sid")
    evaluate([upstream_folder], cfg=cfg, progress=Listener())
    sets = sorted((tmp_path / "store" / "pooled").iterdir())
    assert len(sets) == 3
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    cfg["superb"]["sid"]["lr"] = 1e-3  # another head on the same features
    evaluate([upstream_folder], cfg=cfg, progress=Listener())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == files
    other = save_upstream(tmp_path / "other", seed=1)
    evaluate([other], cfg=cfg, progress=Listener())
    assert len(list((tmp_path / "store" / "pooled").iterdir())) == 6
    assert (tmp_path / "out" / "other" / "sid.json").is_file()


@pytest.mark.parametrize("task", ["pr", "ks", "asr", "asv", "sd"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(task, configuration, upstream, monkeypatch, tmp_path):
    from speechft.superb.fast import FastRun

    recipe = {"steps": 10, "log_step": 4}
    plain = evaluate([upstream], [task], cfg=configuration(recipe), progress=Listener())[0]
    cfg = configuration(recipe, out=str(tmp_path / "second"))
    forward, counts = FastRun._forward, []

    def killed(self, name, *args):
        counts.append(name)
        if counts.count("train") == 8 * cfg["superb"][task]["accumulate"]:
            raise KeyboardInterrupt
        return forward(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate([upstream], [task], cfg=cfg, progress=Listener())
    state = next((tmp_path / "second").rglob("state.pt"))
    assert torch.load(state, weights_only=True)["step"] == 6
    counts.clear()

    def counted(self, name, *args):
        counts.append(name)
        return forward(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", counted)
        resumed = evaluate([upstream], [task], cfg=cfg, progress=Listener())[0]
    # it went on: a training from the first step would end as well, after 10
    assert counts.count("train") == 4 * cfg["superb"][task]["accumulate"]
    assert not state.exists()
    for key in ("metrics", "dev", "layer_weights", "loss"):
        assert resumed[key] == plain[key], key


def test_s3prl_goes_on_from_its_checkpoint(configuration, upstream, tmp_path):
    class Killer(Listener):
        def bar(self, label):
            def show(done, total):
                if done == 6:
                    raise KeyboardInterrupt

            return show

    cfg = configuration({"steps": 9})
    with pytest.raises(KeyboardInterrupt):
        evaluate([upstream], ["pr"], "s3prl", cfg=cfg, progress=Killer())
    expdir = tmp_path / "out" / "tiny" / ".work" / "pr-s3prl" / "s3prl"
    assert [path.name for path in expdir.glob("states-*.ckpt")] == ["states-3.ckpt"]
    result = evaluate([upstream], ["pr"], "s3prl", cfg=cfg, progress=Listener())[0]
    assert result["steps"] == 9 and result["dev"]["step"] in (3, 6, 9)
    assert [path.name for path in expdir.glob("states-*.ckpt")] == ["states-9.ckpt"]


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_a_loss_that_is_nan_is_one_line(engine, configuration, upstream):
    cfg = configuration({"lr": 1e30}, tasks=["sid"])
    with pytest.raises(SpeechFTError, match=r"^the loss of sid is NaN at step \d+; lower superb.sid.lr$"):
        evaluate([upstream], engine=engine, cfg=cfg, progress=Listener())


def test_a_batch_larger_than_the_corpus(configuration, upstream):
    for engine in ("fast", "s3prl"):
        with pytest.raises(SpeechFTError, match=r"fewer (items )?than one batch"):
            evaluate([upstream], ["ks"], engine, cfg=configuration({"batch_size": 500}), progress=Listener())


def test_failures_inside_s3prl_are_one_line_with_a_log(configuration, upstream, monkeypatch):
    from speechft.superb.tasks.ks import KS

    monkeypatch.setattr(KS, "settle", lambda self, expert: 1 / 0)
    with pytest.raises(
        SpeechFTError, match=r"ks failed inside s3prl \(ZeroDivisionError.*; see (.*s3prl.log)"
    ) as error:
        evaluate([upstream], ["ks"], cfg=configuration(), progress=Listener())
    log = error.value.mend.removeprefix("see ")
    assert "Traceback" in open(log).read()  # noqa: PTH123, SIM115


def test_pooled_features_over_budget(configuration, upstream, tmp_path):
    with pytest.raises(SpeechFTError, match=r"features for ks take .* GB"):
        evaluate([upstream], ["ks"], cfg=configuration(budget_gb=1e-6), progress=Listener())
    assert not (tmp_path / "store").exists()


def test_all_tasks_with_the_embedded_upstream(configuration, tmp_path):
    """In one command, as a user would."""
    from speechft.superb.tasks import NAMES

    cfg = configuration({"steps": 2, "eval_step": 2}, tasks=list(NAMES))
    results = evaluate(["hubert_nano"], cfg=cfg, progress=Listener())
    assert [one["task"] for one in results] == list(NAMES)
    for one in results:
        assert one["metric"] in one["metrics"] and len(one["layer_weights"]) == 5
        assert all(math.isfinite(value) for value in one["metrics"].values())
        assert read_json(tmp_path / "out" / "hubert_nano" / f"{one['task']}.json") == one


def test_several_devices_are_told_that_one_streams(tmp_path):
    from types import SimpleNamespace

    from speechft.superb.assemble import what_fits
    from speechft.superb.store import FeatureStore, Key, Layout
    from speechft.superb.tasks import get_task

    plans = {"train": (SimpleNamespace(), Key("u", "d", "frames", "float32"), Layout([10**6], 2, 8))}
    for count, ends in ((1, "for all learning rates"), (2, "for all learning rates, on the first device alone")):
        told: list[str] = []
        assert what_fits(get_task("pr"), plans, FeatureStore(tmp_path), 1e-3, told.append, count) == set()
        assert len(told) == 1 and told[0].endswith(ends)


@pytest.mark.parametrize("budget", [1e-6, 4e-4], ids=["nothing fits", "dev and test fit"])
def test_frames_over_budget_are_computed_at_every_batch(budget, configuration, upstream, tmp_path, monkeypatch):
    """The same scores; and the upstream runs once for all rates."""
    recipe = {"accumulate": 1}
    stored = evaluate([upstream], ["pr"], cfg=configuration(recipe, lr=[1e-2, 1e-3]), progress=Listener())[0]
    shutil.rmtree(tmp_path / "store")
    forward, heard = type(upstream).forward, []

    def counted(self, waves):
        heard.extend(waves)
        return forward(self, waves)

    listener = Listener()
    cfg = configuration(recipe, lr=[1e-2, 1e-3], budget_gb=budget, out=str(tmp_path / "second"))
    with monkeypatch.context() as patch:
        patch.setattr(type(upstream), "forward", counted)
        streamed = evaluate([upstream], ["pr"], cfg=cfg, progress=listener)[0]
    assert "the upstream runs at every batch instead, once for all learning rates" in listener.text
    for key in ("metrics", "dev"):
        assert streamed[key] == pytest.approx(stored[key], rel=1e-6, abs=1e-6)
    assert "streamed" not in stored and sorted(streamed["streamed"]) == (
        ["dev", "test", "train"] if budget < 1e-5 else ["train"]
    )
    sets = list((tmp_path / "store").glob("frames/*"))
    training, dev, test = 6 * 3, 2 * 4, 4  # steps and batch; two evaluations of four; four
    if budget < 1e-5:
        assert not sets and len(heard) - 1 == training + dev + test  # s3prl's Featurizer tries one waveform
    else:
        assert len(sets) == 2 and len(heard) - 1 == training + 4 + test


def test_crops_drawn_anew_are_another_recipe():
    """ASV's crops are drawn once and kept only where its frames are stored; PR has none, so there it is no matter."""
    one = {"task": "asv", "settings": {"crops": 4}, "data": "x"}
    assert differences(recipe({**one, "streamed": ["train"]}), recipe(one)) == ["crops drawn anew instead of 4"]
    assert differences(recipe({**one, "streamed": ["test"]}), recipe(one)) == []
    without = {"task": "pr", "settings": {"steps": 4}, "data": "x"}
    assert differences(recipe({**without, "streamed": ["train"]}), recipe(without)) == []


def test_half_precision_frames(configuration, upstream):
    full = evaluate([upstream], ["pr"], cfg=configuration(), progress=Listener())[0]
    half = evaluate([upstream], ["pr"], cfg=configuration(frames_dtype="float16"), progress=Listener())[0]
    assert half["loss"] == pytest.approx(full["loss"], abs=2e-2) and half["loss"] != full["loss"]
    assert (full["frames_dtype"], half["frames_dtype"]) == ("float32", "float16")


def test_a_result_says_which_lists_it_is_of(configuration, upstream, tmp_path):
    """Another lexicon for the same audio: the audio's hash stays, what is asked of it does not."""
    cfg = configuration(tasks=["pr"])
    first = evaluate([upstream], cfg=cfg, progress=Listener())[0]
    words = [line.split() for line in Path(cfg["data"]["lexicon"]).read_text().splitlines() if line.strip()]
    other = tmp_path / "lexicon.txt"
    other.write_text("".join(f"{' '.join([word, *phones, phones[-1]])}\n" for word, *phones in words))
    second = evaluate([upstream], cfg={**cfg, "data": {**cfg["data"], "lexicon": str(other)}}, progress=Listener())[0]
    assert first["data"] == second["data"] and first["metrics"] != second["metrics"]
    assert second["lists"]["lexicon"] == [hashlib.sha256(other.read_bytes()).hexdigest()] != first["lists"]["lexicon"]
    assert differences(recipe(second), recipe(first)) == ["another lexicon"]


def test_reduced_precision_is_another_result_of_other_features(configuration, upstream_folder, tmp_path):
    cfg = configuration(tasks="sid")
    full = evaluate([upstream_folder], cfg=cfg, progress=Listener())[0]
    half = evaluate([upstream_folder], cfg={**cfg, "precision": "bf16"}, progress=Listener())[0]
    assert (full["precision"], half["precision"]) == ("no", "bf16") and full["compile"] is False
    assert half["loss"] == pytest.approx(full["loss"], abs=5e-2) and half["loss"] != full["loss"]
    keys = [read_json(path)["upstream"] for path in (tmp_path / "store" / "pooled").glob("*/key.json")]
    assert sorted(key.endswith("-bf16") for key in keys) == [False] * 3 + [True] * 3
    with pytest.raises(UsageError, match="precision and compile are for --engine fast"):
        evaluate([upstream_folder], engine="s3prl", cfg={**cfg, "precision": "bf16"}, progress=Listener())


def test_wrong_use(configuration, upstream):
    with pytest.raises(UsageError, match="unknown SUPERB task xy"):
        evaluate([upstream], ["xy"], cfg=configuration())
    with pytest.raises(UsageError, match="unknown engine 'slow'"):
        evaluate([upstream], engine="slow", cfg=configuration())
    with pytest.raises(UsageError, match="budget_gb=0"):
        evaluate([upstream], cfg=configuration(budget_gb=0))
    for key, value in (("budget_gb", "much"), ("budget_gb", None), ("batch_seconds", "x"), ("seed", "x"), ("seed", -1)):
        with pytest.raises(UsageError, match=f"{key}={value} is not "):
            evaluate([upstream], cfg=configuration(**{key: value}))
    with pytest.raises(UsageError, match=r"superb\.sid\.crops=1\.5 is not a whole number"):
        evaluate([upstream], ["sid"], cfg=configuration(crops=1.5))
    with pytest.raises(UsageError, match="neither a known name nor a folder"):
        evaluate(["no_such_upstream"], cfg=configuration(), progress=Listener())


def test_what_all_tasks_lack_is_one_line(configuration, upstream, tmp_path):
    """Before any of them runs: nobody mends ten paths one after the other."""
    from speechft.superb.tasks import NAMES, get_task

    cfg = configuration(tasks=list(NAMES))
    gone = {"lexicon", "snips", "fluent_commands", "quesst14"}  # of PR, SF, IC and QbE
    cfg["data"].update({key: str(tmp_path / "nowhere" / key) for key in gone})
    with pytest.raises(SpeechFTError) as error:
        evaluate([upstream], cfg=cfg, progress=Listener())
    message = str(error.value)
    assert "\n" not in message and message.count("set the paths") == 1
    for name in NAMES:
        task = get_task(name)
        own = [key for key in task.needs if key in gone]
        assert (f"{name} needs files that are not there" in message) is bool(own)
        assert all(f"nowhere/{key} does not exist ({task.needs[key]})" in message for key in own)
    assert not (tmp_path / "out").exists() and not (tmp_path / "store").exists()


def test_names_of_results(tmp_path):
    for folder in ("myrun/merged/alpha-0.25", "myrun/merged/alpha-0.5", "myrun/finetuned", "single/finetuned", "plain"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
        (tmp_path / folder / "model.safetensors").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert [name for name, _ in named([tmp_path / "myrun"])] == ["myrun-alpha-0.25", "myrun-alpha-0.5"]
    assert [name for name, _ in named([str(tmp_path / "single"), tmp_path / "plain"])] == ["single-finetuned", "plain"]
    assert model_name("facebook/hubert-base-ls960") == "facebook--hubert-base-ls960"
    assert model_name("hubert_base") == "hubert_base"
    (tmp_path / "x" / "plain").mkdir(parents=True)
    (tmp_path / "x" / "plain" / "config.json").write_text("{}")
    first, second = named([tmp_path / "plain", tmp_path / "x" / "plain", tmp_path / "plain"])
    assert first[0] == "plain" and second[0].startswith("plain-")
    spellings = [tmp_path / "plain", f"{tmp_path}/plain/", str(tmp_path / "x" / ".." / "plain")]
    assert named(spellings) == [("plain", str(tmp_path / "plain"))]
    assert named({"mine": tmp_path / "plain", "a/b": "x"}) == [("mine", tmp_path / "plain"), ("a--b", "x")]
    with pytest.raises(SpeechFTError, match="holds no model"):
        named([tmp_path / "empty"])


def test_how_the_upstreams_hear_can_be_asked_for(configuration, upstream_folder, tmp_path):
    """For all of a command; a result says it, and is not taken for one that was heard otherwise."""
    cfg = configuration(tasks="sid")
    (usual,) = evaluate([upstream_folder], cfg=cfg)
    cfg["upstream"] = {"normalize": not usual["upstream"]["normalize"], "padding": None}
    listener = Listener()
    (other,) = evaluate([upstream_folder], cfg=cfg, progress=listener)
    assert (
        other["upstream"]["normalize"] is not usual["upstream"]["normalize"] and "finished before" not in listener.text
    )
    assert other["upstream"]["sha256"] == usual["upstream"]["sha256"] and other["loss"] != usual["loss"]


def test_other_paddings_are_for_s3prls_own_batches(configuration, upstream_folder):
    cfg = {**configuration(tasks="sid"), "upstream": {"padding": "s3prl"}}
    with pytest.raises(UsageError, match=r"upstream.padding=s3prl is about s3prl's batches.*--engine s3prl"):
        evaluate([upstream_folder], cfg=cfg)
    (result,) = evaluate([upstream_folder], engine="s3prl", cfg=cfg)
    assert result["upstream"]["padding"] == "s3prl"
    with pytest.raises(UsageError, match=r"unknown upstream\.paddign; known: normalize, padding"):
        evaluate([upstream_folder], cfg={**cfg, "upstream": {"paddign": "own"}})
