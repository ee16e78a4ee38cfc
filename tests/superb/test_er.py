"""ER: IEMOCAP's labels as s3prl's meta data, and five evaluations under one name."""

from __future__ import annotations

import importlib
import io
import json
import shutil
from collections import Counter

import pytest
from small import superb_settings
from tiny_corpora import RECIPES
from tiny_pooled import make_iemocap

from speechft.console import Progress
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json
from speechft.report.collect import read_score
from speechft.superb import compat
from speechft.superb.evaluate import evaluate
from speechft.superb.fast import Outcome
from speechft.superb.readers import iemocap
from speechft.superb.tasks import get_task
from speechft.superb.variants import combine


def settings_for(**changes) -> dict:
    return {**superb_settings()["superb"]["er"], **RECIPES["er"], **changes}


def silent() -> Progress:
    return Progress(io.StringIO())


def test_meta_data_are_those_of_s3prl(tmp_path):
    """s3prl's own preprocessing of the same corpus finds the same utterances and labels; it lists them unsorted."""
    compat.install()
    theirs = importlib.import_module("s3prl.downstream.emotion.IEMOCAP_preprocess")
    root = tmp_path / "corpus"
    make_iemocap(root)
    for fold in iemocap.SESSIONS:
        iemocap.write_fold(root, fold, tmp_path / "meta_data")
    for hidden in root.rglob("._*"):  # s3prl reads macOS's files as tables and fails
        hidden.unlink()
    theirs.main(str(root))
    for fold in iemocap.SESSIONS:
        for part in ("train", "test"):
            name = f"meta_data/Session{fold}/{part}_meta_data.json"
            expected, own = read_json(root / name), read_json(tmp_path / name)
            assert own["labels"] == expected["labels"]
            assert sorted(own["meta_data"], key=str) == sorted(expected["meta_data"], key=str)
            dialogues = [entry["path"].split("/")[-2] for entry in own["meta_data"]]
            assert dialogues == sorted(dialogues) and len(dialogues) == (40 if part == "train" else 10)
    counts = Counter(entry["label"] for session in iemocap.SESSIONS for entry in iemocap.labelled(root, session))
    assert counts == {"neu": 10, "hap": 20, "ang": 10, "sad": 10}


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_folds_end_to_end(engine, configuration, upstream, tmp_path):
    result = evaluate([upstream], ["er"], engine, cfg=configuration(), progress=silent())[0]
    metrics = result["metrics"]
    assert list(metrics) == ["acc", "acc-fold2", "acc-fold5"] and result["steps"] == 6
    assert metrics["acc"] == pytest.approx((metrics["acc-fold2"] + metrics["acc-fold5"]) / 2)
    lines = [json.loads(line) for line in (tmp_path / "out" / "tiny" / "er.utterances.jsonl").open()]
    assert len(lines) == result["test_utterances"] == 20
    for fold in (2, 5):
        own = [line for line in lines if line["file"].startswith(f"fold{fold}/Ses0{fold}")]
        assert len(own) == 10 and sum(line["correct"] for line in own) / 10 == pytest.approx(metrics[f"acc-fold{fold}"])
    if engine == "fast":  # the two folds share one set of features: that of all 50 utterances
        notes = list((tmp_path / "store" / "pooled").glob("*/0*.json"))
        assert len(notes) == 1 and len(read_json(notes[0])["items"]) == 50
    assert read_score(tmp_path / "out" / "tiny" / "er.json").value == pytest.approx(100 * metrics["acc"])


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_a_finished_fold_is_not_run_again(engine, configuration, upstream, monkeypatch, tmp_path):
    from speechft.superb.tasks.er import ER

    plain = evaluate([upstream], ["er"], engine, cfg=configuration(), progress=silent())[0]
    cfg = configuration(out=str(tmp_path / "second"))
    config, folds = ER.expert_config, []

    def killed(self, *args):
        folds.append(self.fold)
        if folds == [2, 5]:
            raise KeyboardInterrupt
        return config(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ER, "expert_config", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate([upstream], ["er"], engine, cfg=cfg, progress=silent())
        folds.clear()
        folds.append("again")
        resumed = evaluate([upstream], ["er"], engine, cfg=cfg, progress=silent())[0]
    assert folds == ["again", 5]
    for key in ("metrics", "dev", "layer_weights", "loss", "data", "test_utterances"):
        assert resumed[key] == plain[key], key
    assert not list((tmp_path / "second").rglob("state.pt"))


def test_a_fold_killed_in_the_middle_goes_on(configuration, upstream, monkeypatch, tmp_path):
    from speechft.superb.fast import FastRun

    plain = evaluate([upstream], ["er"], cfg=configuration(), progress=silent())[0]
    cfg = configuration(out=str(tmp_path / "second"))
    forward, seen = FastRun._forward, []

    def killed(self, name, *args):
        seen.append((self.task.fold, name))
        if seen.count((5, "train")) == 9:  # in step 5 of 6, after the evaluation of step 3
            raise KeyboardInterrupt
        return forward(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FastRun, "_forward", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate([upstream], ["er"], cfg=cfg, progress=silent())
    states = [path.parent.name for path in (tmp_path / "second").rglob("state.pt")]
    assert "fold5" in states
    resumed = evaluate([upstream], ["er"], cfg=cfg, progress=silent())[0]
    for key in ("metrics", "dev", "layer_weights", "loss"):
        assert resumed[key] == plain[key], key


def test_folds_of_different_size_count_the_same():
    """Three utterances of one fold against one of the other: (2/3 + 0) / 2, not 2/4."""

    def outcome(acc: float, hits: list[int]) -> Outcome:
        lines = [{"file": str(number), "correct": hit} for number, hit in enumerate(hits)]
        return Outcome({"acc": acc, "loss": 1.0}, {"acc": acc, "step": 3}, {"utterances": lines}, [acc, 1 - acc], 7)

    both = combine({"a": outcome(2 / 3, [1, 1, 0]), "b": outcome(0.0, [0])})
    assert both.metrics == pytest.approx({
        "acc": 1 / 3, "loss": 1.0, "acc-a": 2 / 3, "acc-b": 0.0, "loss-a": 1.0, "loss-b": 1.0,
    })  # fmt: skip
    assert both.dev == pytest.approx({"acc": 1 / 3, "acc-a": 2 / 3, "acc-b": 0.0, "step-a": 3, "step-b": 3})
    assert (both.weights, both.steps) == (pytest.approx([1 / 3, 2 / 3]), 7)
    lines = both.records["utterances"]
    assert [line["file"] for line in lines] == ["a/0", "a/1", "a/2", "b/0"]
    weights = [line["weight"] for line in lines]
    assert sum(line["correct"] * line["weight"] for line in lines) / sum(weights) == pytest.approx(1 / 3)


def test_what_is_missing_inside(tmp_path, corpora):
    task, data = get_task("er"), {"iemocap": str(tmp_path / "corpus")}
    make_iemocap(tmp_path / "corpus")
    task.check(data, settings_for())
    wav = tmp_path / "corpus" / "Session3" / "sentences" / "wav" / "Ses03F_impro01" / "Ses03F_impro01_F000.wav"
    wav.unlink()
    with pytest.raises(SpeechFTError, match=r"1 of the 50 labelled utterances .*\(Session3/.*F000.wav\)"):
        task.check(data, settings_for())
    shutil.rmtree(tmp_path / "corpus" / "Session4")
    with pytest.raises(SpeechFTError, match=r"has no Session4/dialog/EmoEvaluation, Session4/sentences/wav \(IEMOCAP"):
        task.check(data, settings_for())
    with pytest.raises(UsageError, match=r"superb\.er\.folds=\[6\]"):
        task.check(corpora.data, settings_for(folds=[6]))


def test_meta_data_of_the_user(tmp_path, corpora, configuration, upstream):
    """In another order they give another dev set."""
    meta, task = tmp_path / "meta", get_task("er")
    data = {**corpora.data, "iemocap_meta": str(meta)}
    meta.mkdir()
    with pytest.raises(SpeechFTError, match=r"has no Session1/train_meta_data.json, Session1/test_meta_data.json, S"):
        task.check(data, settings_for())
    for fold in iemocap.SESSIONS:
        iemocap.write_fold(corpora.root / "iemocap", fold, meta)
    task.check(data, settings_for())
    own = evaluate([upstream], ["er"], cfg=configuration({"folds": [1]}), progress=silent())[0]
    cfg = configuration({"folds": [1]})
    cfg["data"]["iemocap_meta"] = str(meta)
    given = evaluate([upstream], ["er"], cfg=cfg, progress=silent())[0]
    assert given["fingerprint"] != own["fingerprint"] and given["data"] == own["data"]
    path = iemocap.meta_file(meta, 1, "train")
    content = read_json(path)
    content["meta_data"].reverse()
    path.write_text(json.dumps(content))
    cfg["out"] = str(tmp_path / "third")
    assert evaluate([upstream], ["er"], cfg=cfg, progress=silent())[0]["data"] != own["data"]
    path.write_text("{}")
    with pytest.raises(SpeechFTError, match=r"train_meta_data.json has no labels and meta_data"):
        task.check(data, settings_for())


def test_each_fold_chooses_its_own_rate(configuration, upstream):
    """Two rates of which one learns nothing: every fold's dev set says so."""
    cfg = configuration({"steps": 20, "eval_step": 10}, lr=[1e-9, 3e-2], tasks=["er"])
    result = evaluate([upstream], cfg=cfg, progress=silent())[0]
    search = result["lr_search"]
    assert [(one["variant"], one["lr"]) for one in search] == [
        ("fold2", 1e-9), ("fold2", 3e-2), ("fold5", 1e-9), ("fold5", 3e-2),
    ]  # fmt: skip
    for fold in (2, 5):
        scores = [one["dev"].get("acc", 0) for one in search if one["variant"] == f"fold{fold}"]
        assert result["dev"][f"acc-fold{fold}"] == max(scores)
    assert result["lr"] in (3e-2, None)
