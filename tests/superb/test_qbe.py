"""QbE: one pass of the upstream finds what s3prl's run per layer finds."""

from __future__ import annotations

import io
import json
import sys

import pytest
from small import superb_settings
from tiny_corpora import RECIPES
from tiny_pooled import make_quesst

from speechft.console import Progress
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json
from speechft.report.collect import read_score
from speechft.superb.evaluate import evaluate
from speechft.superb.mtwv import read_detections
from speechft.superb.search import _search_layers
from speechft.superb.settings import Settings
from speechft.superb.tasks import get_task


def settings_for(**changes) -> dict:
    return {**superb_settings()["superb"]["qbe"], **RECIPES["qbe"], **changes}


def run(engine, cfg, upstream):
    return evaluate([upstream], ["qbe"], engine, cfg=cfg, progress=Progress(io.StringIO()))[0]


def folder_of(path, engine):
    return path / "tiny" / ".work" / f"qbe-{engine}"


@pytest.mark.parametrize(("batch_seconds", "tolerance"), [(0.01, 0.0), (8.0, 5e-4)], ids=["alone", "in batches"])
def test_fast_is_s3prl(batch_seconds, tolerance, configuration, upstream, corpora, tmp_path, capfd):
    """s3prl hears one waveform at a time. Heard so, ours are the same to the last digit that it writes."""
    results = {
        engine: run(engine, configuration(out=str(tmp_path / engine), batch_seconds=batch_seconds), upstream)
        for engine in ("fast", "s3prl")
    }
    assert capfd.readouterr() == ("", "")
    own, theirs = results["fast"], results["s3prl"]
    best = int(own["dev"]["layer"])
    searched = 0
    for split, layers in (("dev", range(4)), ("test", [best])):
        for layer in layers:
            found, expected = (
                read_detections(
                    folder_of(tmp_path / engine, engine) / f"layer{layer}-{split}" / "benchmark.stdlist.xml"
                )
                for engine in results
            )
            assert found.keys() == expected.keys() and len(found) == 4  # the fifth query is not English
            for query, scores in expected.items():
                assert scores.keys() == found[query].keys() and len(scores) == 5
                wanted = [scores[name] for name in found[query]]
                assert list(found[query].values()) == pytest.approx(wanted, rel=0, abs=tolerance)
                searched += len(scores)
            short = f"quesst14_{'dev' if split == 'dev' else 'eval'}_0004"
            assert set(found[short].values()) == {0.0}  # s3prl does not search for less than five frames
    assert searched == 5 * 4 * 5
    assert own["data"] == theirs["data"] and own["metrics"].keys() == theirs["metrics"].keys()
    for part in ("metrics", "dev"):
        assert own[part] == pytest.approx(theirs[part], abs=tolerance), part
    assert own["dev"]["mtwv"] == max(own["dev"][f"mtwv-layer{layer}"] for layer in range(4)) > 0
    first, last = (
        read_detections(folder_of(tmp_path / "s3prl", "s3prl") / f"layer{layer}-dev" / "benchmark.stdlist.xml")
        for layer in (0, 3)
    )
    changes = [abs(first[query][name] - last[query][name]) for query in first for name in first[query]]
    assert max(changes) > 0.02  # forty times what the engines may differ by: the layers are not the same
    assert own["layer_weights"] == [float(layer == best) for layer in range(4)]
    assert own["metrics"]["beta"] == pytest.approx(2)  # (1 - 0.2) / (2 * 0.2), from the corpus's script
    assert (own["steps"], own["lr"], own["metric"]) == (0, None, "mtwv")
    for engine, result in results.items():
        lines = [json.loads(line) for line in (tmp_path / engine / "tiny" / "qbe.utterances.jsonl").open()]
        assert len(lines) == result["test_utterances"] in (4, 5)
        assert sum(line["value"] for line in lines) / len(lines) == pytest.approx(result["metrics"]["mtwv"])
        score = read_score(tmp_path / engine / "tiny" / "qbe.json")
        assert score.value == pytest.approx(100 * float(score.utterances.score()[0]))
    # all waveforms in one set: 5 documents, 4 + 4 queries; the upstream heard each once
    (note,) = (tmp_path / "store" / "frames").glob("*/0*.json")
    assert len(read_json(note)["items"]) == 13


def test_the_best_layer_on_dev_is_tested(corpora, configuration, tmp_path):
    """Layer 2 knows the truth of dev, layer 0 that of test, the others guess nothing right."""
    task, settings = get_task("qbe"), Settings.read({**configuration(), "tasks": "qbe"})
    searched = []

    def search(split, layer, folder):
        searched.append((split, layer))
        truth, _ = task.truth(settings.data, split)
        knows = (split, layer) in (("dev", 2), ("test", 0))
        lines = [
            f'<detected_termlist termid="{query}">'
            + "".join(f'<term file="{name}" score="{float((name in found) == knows)}"/>' for name in truth.documents)
            + "</detected_termlist>"
            for query, found in truth.targets.items()
        ]
        (folder / "benchmark.stdlist.xml").write_text(f"<stdlist>{''.join(lines)}</stdlist>")

    outcome = _search_layers(task, settings, 4, tmp_path, search)
    assert searched == [("dev", 0), ("dev", 1), ("dev", 2), ("dev", 3), ("test", 2)]
    assert outcome.dev["mtwv"] == pytest.approx(1) and outcome.dev["mtwv-layer2"] == pytest.approx(1)
    assert outcome.dev["mtwv-layer0"] == outcome.metrics["mtwv"] == 0 and "threshold" not in outcome.metrics
    assert outcome.weights == [0, 0, 1, 0] and outcome.metrics["layer"] == 2


def test_processes_do_not_change_what_is_found(configuration, upstream, tmp_path):
    for workers in (1, 2):
        cfg = configuration({"layers": [1], "workers": workers}, out=str(tmp_path / str(workers)))
        run("fast", cfg, upstream)
    one, two = (
        (folder_of(tmp_path / str(workers), "fast") / "layer1-dev" / "benchmark.stdlist.xml").read_bytes()
        for workers in (1, 2)
    )
    assert one == two


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_a_killed_search_goes_on_at_its_layer(engine, configuration, upstream, monkeypatch, tmp_path):
    from speechft.superb import search

    plain = run(engine, configuration({"layers": [0, 2]}), upstream)
    cfg = configuration({"layers": [0, 2]}, out=str(tmp_path / "second"))
    score, seen = search._score, []

    def killed(task, settings, split, path):
        seen.append(path.parent.name)
        if seen == ["layer0-dev", "layer2-dev"]:
            raise KeyboardInterrupt
        return score(task, settings, split, path)

    monkeypatch.setattr(search, "_score", killed)
    with pytest.raises(KeyboardInterrupt):
        run(engine, cfg, upstream)
    seen.clear()
    seen.append("again")
    again = run(engine, cfg, upstream)
    assert seen[1] == "layer2-dev" and len(seen) == 3 and seen[2] in ("layer0-test", "layer2-test")
    for key in ("metrics", "dev", "layer_weights"):
        assert again[key] == plain[key], key


def test_what_is_missing(tmp_path, corpora, monkeypatch):
    task, root = get_task("qbe"), tmp_path / "quesst14Database"
    data = {"quesst14": str(root)}
    make_quesst(root)
    task.check(data, settings_for())
    (root / "Audio" / "quesst14_00006.wav").unlink()  # not English, never read
    task.check(data, settings_for())
    (root / "Audio" / "quesst14_00002.wav").unlink()
    with pytest.raises(SpeechFTError, match=r"1 of the 5 English files .*\(Audio/quesst14_00002.wav\)"):
        task.check(data, settings_for())
    (root / "scoring" / "language_key_dev.lst").unlink()
    (root / "scoring" / "groundtruth_quesst14_eval" / "quesst14.ecf.xml").unlink()
    with pytest.raises(SpeechFTError) as error:
        task.check(data, settings_for())
    assert "language_key_dev.lst, scoring/groundtruth_quesst14_eval/*.ecf.xml" in str(error.value)
    monkeypatch.setitem(sys.modules, "dtw", None)
    monkeypatch.setattr("speechft.superb.tasks.qbe.find_spec", lambda name: None)
    with pytest.raises(SpeechFTError, match=r"dtw-python, lxml not installed \(pip install 'speechft\[qbe\]'\)"):
        task.check(corpora.data, settings_for())


def test_settings(corpora, configuration, upstream):
    task = get_task("qbe")
    config = task.config(superb_settings()["superb"]["qbe"], corpora.data, corpora.root)["downstream_expert"]
    assert config["feature_normalization"] and config["datarc"]["batch_size"] == 1
    assert config["dtwrc"] == {
        "dist_method": "cosine_exp", "minmax_norm": True, "step_pattern": "asymmetric", "subsequence": True,
    }  # fmt: skip
    for wrong in ({"layers": []}, {"step_pattern": "symmetric2"}, {"distance": "cosine_neg_log"}):
        with pytest.raises(UsageError, match=r"superb\.qbe\."):
            task.check(corpora.data, settings_for(**wrong))
    with pytest.raises(UsageError, match="the upstream has 4 hidden states"):
        run("fast", configuration({"layers": [4]}), upstream)
