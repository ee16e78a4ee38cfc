"""The whole report, from result folders made by hand."""

from __future__ import annotations

import json

import pytest
from results import identity, write_accuracy, write_errors, write_result, write_run

from speechft.config.locate import read_group
from speechft.errors import SpeechFTError, UsageError
from speechft.report.page import tables
from speechft.report.recipes import differences, recipe
from speechft.report.report import make_report

HALF, MORE = [1, 0] * 10, [1, 1, 1, 0] * 5


def rows_of(report):
    return {row["name"]: row for row in report["rows"]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run merged at two α, scored on SID and PR; its upstream is scored apart, where `eval superb NAME` puts it."""
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path / "runs"))
    folder = write_run(tmp_path / "runs" / "mine", "w0", "w1", {0.25: "w25", 0.5: "w50"})
    for alpha, weights, hits, errors in ((0.25, "w25", MORE, 2), (0.5, "w50", HALF, 6)):
        upstream = identity(weights, source=str(folder / "merged" / f"alpha-{alpha:g}"))
        target = folder / "superb" / f"mine-alpha-{alpha:g}"
        write_accuracy(target, "sid", hits, upstream)
        write_errors(target, "pr", "per", [(errors, 10), (0, 30)], upstream)
    base = tmp_path / "runs" / "superb" / "base"
    write_accuracy(base, "sid", HALF, identity("w0"))
    write_errors(base, "pr", "per", [(4, 10), (0, 30)], identity("w0"))
    return folder


def test_a_run_beside_its_upstream(run):
    report = make_report([run], draws=500)
    assert [row["name"] for row in report["rows"]] == ["base", "mine-alpha-0.25", "mine-alpha-0.5"]
    assert [column["key"] for column in report["columns"]] == ["pr.per", "sid.acc"]
    rows = rows_of(report)
    assert rows["base"]["pretrained"] and rows["base"]["base"] is None and rows["base"]["alpha"] == 0
    assert [rows[name]["alpha"] for name in ("mine-alpha-0.25", "mine-alpha-0.5")] == [0.25, 0.5]
    cell = rows["mine-alpha-0.25"]["cells"]["sid.acc"]
    assert cell["mean"] == 75 and cell["test_utterances"] == 20 and cell["spread"] is None
    low, high = cell["interval"]
    assert low < 75 < high and high - low == pytest.approx(2 * 1.96 * 100 * (0.75 * 0.25 / 20) ** 0.5, rel=0.25)
    change = cell["difference"]
    assert change["mean"] == 25 and change["verdict"] == "better" and 0 < change["interval"][0] < 25
    same = rows["mine-alpha-0.5"]["cells"]["sid.acc"]["difference"]
    assert same == {"mean": 0, "interval": (0, 0), "verdict": "not clearly different"}
    assert rows["mine-alpha-0.25"]["cells"]["pr.per"]["mean"] == pytest.approx(5)
    assert rows["mine-alpha-0.25"]["cells"]["pr.per"]["difference"]["mean"] == pytest.approx(-5)
    # SUPERB_S over PR and SID, by hand from superb.json
    points = [1000 * (5 - 82.01) / (3.53 - 82.01), 1000 * (75 - 20.058174) / (90.3 - 20.058174)]
    score = rows["mine-alpha-0.25"]["superb_s"]
    assert score["value"] == pytest.approx(sum(points) / 2) and report["superb_s"]["tasks"] == ["pr", "sid"]
    before = [1000 * (10 - 82.01) / (3.53 - 82.01), 1000 * (50 - 20.058174) / (90.3 - 20.058174)]
    assert score["difference"]["mean"] == pytest.approx(sum(points) / 2 - sum(before) / 2)
    assert score["difference"]["interval"][0] <= score["difference"]["mean"] <= score["difference"]["interval"][1]


def test_files_and_text(run):
    report = make_report([run], draws=200)
    assert json.loads((run / "report.json").read_text())["rows"][1]["name"] == "mine-alpha-0.25"
    text = (run / "report.md").read_text()
    assert text == report["markdown"] and "![base, fine-tuned and merged with weight α" in text
    assert (run / "alpha.png").read_bytes()[:4] == b"\x89PNG"
    assert report["plots"][0]["curves"]["sid.acc"] == {"mine": {0.0: [50], 0.25: [75], 0.5: [50]}}
    shown = tables(report)
    assert "| **base** (pre-trained) | 10.00 [" in shown
    assert "| _HuBERT Base_ | 5.41 | 81.42 |" in shown and "| _wav2vec 2.0 Base (Speech-FT paper)_ | 5.78° |" in shown
    assert "mine-alpha-0.25: better in" in shown and "° recalled, unchecked." in shown
    assert "superbbenchmark.github.io, src/data/public.json" in text
    assert (
        "Not as in SUPERB, so neither published rows nor SUPERB_S are a yardstick: PR (steps 100 instead of 100000"
        in shown
    )
    assert text.count("FBANK (the SUPERB paper's table 2 has other figures for KS, IC, SID and ER: 8.63, 9.10, ") == 1
    bare = make_report([run], published=False, draws=200, out=run / "elsewhere")
    assert bare["published"] == [] and "HuBERT" not in bare["markdown"] and (run / "elsewhere" / "alpha.png").is_file()


def test_a_reference_of_ones_own_is_not_called_recalled(run, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"points": {"pr.per": {"baseline": 82.01, "sota": 3.06}}}))
    text = make_report([run], published=False, reference=own, draws=100)["markdown"]
    assert "0 and 1000 points are pr.per 82.01 and 3.06. Source: none given." in text
    assert "°" not in text and "recalled" not in text
    theirs = make_report([run], published=False, reference="speech-ft", draws=100)["markdown"]
    assert "°" not in theirs  # PR's and SID's points were compared with their sources


def test_the_report_of_a_demo_is_kept(run):
    (run / "report.json").write_text('{"table": []}')
    (run / "report.md").write_text("the demo's")
    report = make_report([run], draws=100)
    assert report["folder"] == str(run / "report") and (run / "report" / "report.html").is_file()
    assert (run / "report.md").read_text() == "the demo's" and (run / "report.json").read_text() == '{"table": []}'
    assert f"{run} keeps the report that speechft demo wrote there" in report["notes"][-1]
    (run / "report.json").write_text('{"tab')  # not whole
    assert make_report([run], draws=100)["folder"] == str(run)


def test_published_scores_stand_beside_official_corpora_alone(tmp_path):
    for name, corpus in (("one", None), ("two", "synthetic demo")):
        write_accuracy(tmp_path / name, "sid", HALF, identity(name), corpus=corpus)
        write_errors(tmp_path / name, "pr", "per", [(1, 4)], identity(name), corpus="synthetic demo")
    report = make_report([tmp_path], draws=100)
    assert {key for row in report["published"] for key in row["values"]} == {"sid.acc"}
    assert {row["superb_s"] for row in report["published"]} == {None}  # it would be over PR too
    assert make_report([tmp_path / "two"], draws=100)["published"] == []


def test_a_merge_of_alpha_0_is_the_upstream_and_has_its_name(run):
    source = run / "merged" / "alpha-0"
    source.mkdir()
    (source / "merge.json").write_text((run / "merged" / "alpha-0.25" / "merge.json").read_text().replace("0.25", "0"))
    write_accuracy(run / "superb" / "mine-alpha-0", "sid", HALF, identity("w0", source=str(source)))
    names = [row["name"] for row in make_report([run], draws=100)["rows"]]
    assert names == ["base", "mine-alpha-0.25", "mine-alpha-0.5"]
    both = make_report([run, run.parent / "superb"], draws=100)
    assert [row["name"] for row in both["rows"]] == names and rows_of(both)["base"]["pretrained"]


def test_a_corpus_of_ones_own_in_an_official_layout_is_no_yardstick(tmp_path):
    """Known by how much it tests on: no published rows, no SUPERB_S, and it is said."""
    write_accuracy(tmp_path / "one", "sid", HALF, identity("one"), test_utterances=8251)
    write_errors(tmp_path / "one", "pr", "per", [(1, 4)], identity("one"), test_utterances=75)
    report = make_report([tmp_path], draws=100)
    assert {key for row in report["published"] for key in row["values"]} == {"sid.acc"}
    assert report["superb_s"]["columns"] == ["sid.acc"]
    said = "another test set than SUPERB's: 75 utterances, not 2620"
    assert report["superb_s"]["left_out"] == {"pr": said} and report["off_official"]["pr"][0] == said
    assert f"Not in SUPERB_S, which needs SUPERB's corpora and a score of every row: PR ({said})." in report["markdown"]


def test_the_same_command_gives_the_same_report(run):
    assert make_report([run], draws=200) == make_report([run], draws=200)
    other = make_report([run], draws=200, seed=1)
    assert (
        other["rows"][1]["cells"]["sid.acc"]["interval"]
        != make_report([run], draws=200)["rows"][1]["cells"]["sid.acc"]["interval"]
    )


def test_results_and_models_can_be_named_one_by_one(run, tmp_path):
    by_model = make_report([run / "superb" / "mine-alpha-0.25"], draws=100)
    assert [row["name"] for row in by_model["rows"]] == ["base", "mine-alpha-0.25"]
    assert by_model["folder"] == str(run / "superb")
    by_out = make_report([run / "superb", tmp_path / "runs" / "superb"], draws=100, out=tmp_path / "o")
    assert [row["name"] for row in by_out["rows"]] == ["base", "mine-alpha-0.25", "mine-alpha-0.5"]
    assert by_out["notes"] == []


def test_another_base(run):
    report = make_report([run], base="mine-alpha-0.5", draws=100)
    assert {row["name"]: row["base"] for row in report["rows"]} == {
        "base": "mine-alpha-0.5", "mine-alpha-0.25": "mine-alpha-0.5", "mine-alpha-0.5": None,
    }  # fmt: skip
    assert rows_of(report)["base"]["cells"]["pr.per"]["difference"]["mean"] == pytest.approx(-5)
    with pytest.raises(UsageError, match=r"no row is named nobody; --base can be base, mine-alpha"):
        make_report([run], base="nobody", draws=100)


def test_without_the_upstreams_scores(run, tmp_path):
    (tmp_path / "runs" / "superb").rename(tmp_path / "away")
    report = make_report([run], draws=100)
    assert [row["base"] for row in report["rows"]] == [None, None]
    assert "mine-alpha-0.25 started from base, which was not scored" in report["notes"][0]
    assert "Differences" not in report["markdown"]


def test_seeds_are_averaged(tmp_path):
    for seed, hits in ((1, HALF), (2, MORE)):
        write_accuracy(tmp_path / f"out{seed}" / "base", "sid", hits, identity("w0"), seed=seed)
    report = make_report([tmp_path / "out1", tmp_path / "out2"], draws=500)
    (row,) = report["rows"]
    cell = row["cells"]["sid.acc"]
    assert cell["values"] == [50, 75] and cell["mean"] == 62.5 and cell["spread"] == 12.5 and cell["seeds"] == [1, 2]
    assert "62.50 ± 12.50 [" in report["markdown"] and "half the range over 2 seeds" in report["markdown"]
    # the mean of both seeds on the same drawn utterances: those that only one gets right count one half
    assert cell["interval"][1] - cell["interval"][0] < 2 * 1.96 * 100 * (0.25 / 20) ** 0.5


def test_runs_that_differ_by_their_seed_alone_are_one_row(tmp_path):
    for seed in (0, 1):
        run = write_run(tmp_path / f"stable-{seed}", "w0", f"w1-{seed}", {0.25: f"w25-{seed}"}, seed)
        upstream = identity(f"w25-{seed}", source=str(run / "merged" / "alpha-0.25"))
        write_accuracy(run / "superb" / f"stable-{seed}-alpha-0.25", "sid", [HALF, MORE][seed], upstream)
    report = make_report([tmp_path / "stable-0", tmp_path / "stable-1"], draws=100, out=tmp_path / "o")
    (row,) = report["rows"]
    assert row["name"] == "stable-*-alpha-0.25" and row["cells"]["sid.acc"]["values"] == [50, 75]
    sweep = make_report([tmp_path], draws=100, out=tmp_path / "o")  # the folder of a sweep holds its runs
    assert sweep["rows"] == report["rows"]
    config = tmp_path / "stable-1" / "config.yaml"
    config.write_text(config.read_text().replace("0.001", "0.002"))
    assert len(make_report([tmp_path / "stable-0", tmp_path / "stable-1"], draws=100, out=tmp_path / "o")["rows"]) == 2


def test_one_model_evaluated_twice_counts_once(tmp_path):
    for out in ("a", "b"):
        write_accuracy(tmp_path / out / "base", "sid", HALF, identity("w0"))
    (row,) = make_report([tmp_path / "a", tmp_path / "b"], draws=100)["rows"]
    assert row["cells"]["sid.acc"]["values"] == [50]


def test_other_recipes_are_marked_and_not_compared(run, tmp_path):
    upstream = identity("w25", source=str(run / "merged" / "alpha-0.25"))
    target = run / "superb" / "mine-alpha-0.25"
    write_accuracy(target, "sid", MORE, upstream, settings={"lr": 0.1}, engine="s3prl", data="data-2")
    report = make_report([run], draws=200)
    row = rows_of(report)["mine-alpha-0.25"]
    assert row["cells"]["sid.acc"]["mark"] == "a" and row["cells"]["sid.acc"]["difference"] is None
    assert row["cells"]["pr.per"]["mark"] is None and row["cells"]["pr.per"]["difference"]["mean"] == pytest.approx(-5)
    assert row["superb_s"]["marks"] == ["a"] and row["superb_s"]["difference"] is None
    assert report["footnotes"] == {
        "a": "SID: other data (files of train, dev or test, or how they are read); engine s3prl instead of fast; "
        "lr 0.1 instead of 0.01 (base)"
    }
    assert "75.00 [" in report["markdown"] and "] †a |" in report["markdown"]
    assert 0.25 not in report["plots"][0]["curves"]["sid.acc"]["mine"]
    # and one model by two recipes is two rows, not an average
    write_accuracy(tmp_path / "second" / "base", "sid", MORE, identity("w0"), settings={"steps": 7}, steps=7)
    paths = [run, tmp_path / "second", tmp_path / "runs" / "superb"]
    rows = make_report(paths, draws=100, out=tmp_path / "o")["rows"]
    assert [row["name"] for row in rows][:2] == ["base [second]", "base [superb]"]
    assert [row["base"] for row in rows] == [None, None, "base [superb]", "base [superb]"]  # the recipe that fits


def test_a_curve_has_points_of_one_recipe(run, tmp_path):
    """α = 0 and the others of a line are scored alike, also where another recipe of the upstream comes first."""
    longer = {"settings": {"steps": 200}}
    upstream = identity("w25", source=str(run / "merged" / "alpha-0.25"))
    write_accuracy(tmp_path / "b" / "base", "sid", MORE, identity("w0"), **longer)
    write_accuracy(tmp_path / "b" / "mine-alpha-0.25", "sid", [1] * 20, upstream, **longer)
    report = make_report([tmp_path / "runs" / "superb", tmp_path / "b", run], draws=100, out=tmp_path / "o")
    (plot,) = report["plots"]
    assert sorted(map(sorted, (line.items() for line in plot["curves"]["sid.acc"].values()))) == [
        [(0.0, [50]), (0.25, [75]), (0.5, [50])], [(0.0, [75]), (0.25, [100])],
    ]  # fmt: skip
    assert sorted(plot["curves"]["sid.acc"]) == ["mine, against base [b]", "mine, against base [superb]"]
    # the other recipe alone, beside its own row of the upstream
    report = make_report([tmp_path / "runs" / "superb", tmp_path / "b"], draws=100, out=tmp_path / "o")
    assert report["plots"][0]["curves"]["sid.acc"] == {"mine": {0.0: [75], 0.25: [100]}}


def test_a_model_is_compared_with_what_heard_as_it_did(tmp_path):
    """Scores of the same weights with another input normalisation are rows, differences and lines of their own."""
    run = write_run(tmp_path / "mine", "w0", "w1", {0.25: "w25"})
    tuned = identity("w25", source=str(run / "merged" / "alpha-0.25"))
    scores = {False: ([0] * 20, [1] * 2 + [0] * 18), True: (HALF, MORE)}
    for normalize, (before, after) in scores.items():
        write_accuracy(
            tmp_path / f"out-{normalize}" / "base", "sid", before, {**identity("w0"), "normalize": normalize}
        )
        write_accuracy(tmp_path / f"out-{normalize}" / "tuned", "sid", after, {**tuned, "normalize": normalize})
    report = make_report([tmp_path / "out-False", tmp_path / "out-True"], draws=100, out=tmp_path / "o")
    rows = [row for row in report["rows"] if row["base"]]
    assert [row["cells"]["sid.acc"]["difference"]["mean"] for row in rows] == [10, 25] and report["notes"] == []
    lines = report["plots"][0]["curves"]["sid.acc"].values()
    assert sorted(map(sorted, (line.items() for line in lines))) == [
        [(0.0, [0]), (0.25, [10])], [(0.0, [50]), (0.25, [75])],
    ]  # fmt: skip
    # where the upstream was heard in the other way alone, the difference is not the weights' alone
    (tmp_path / "out-True" / "base" / "sid.json").unlink()
    report = make_report([tmp_path / "out-False", tmp_path / "out-True"], draws=100, out=tmp_path / "o")
    assert report["notes"] == ["tuned (2) heard its input otherwise than base (normalize True instead of False): "
                               "that is in the difference too"]  # fmt: skip


def test_what_is_not_superbs_is_said_of_every_row(tmp_path):
    """Another corpus and other parts of LibriSpeech as well as another recipe; published rows stand beside."""
    official = {task: read_group("superb", task) for task in ("pr", "asr", "sid")}
    names = {"train": ["train-clean-100"], "dev": ["dev-clean"], "test": ["test-clean"]}
    for name, splits, corpus in (("one", names, None), ("two", {**names, "train": ["a", "b"]}, "synthetic demo")):
        settings = {"settings": official["pr"], "steps": 100_000}
        write_errors(tmp_path / name, "pr", "per", [(1, 4)], identity(name), splits=splits, **settings)
        settings = {"settings": official["sid"], "steps": 200_000}
        write_accuracy(tmp_path / name, "sid", HALF, identity(name), splits={}, corpus=corpus, **settings)
    specaug = {**official["asr"]["specaug"], "num_freq_mask": 2}
    settings = {"settings": {**official["asr"], "specaug": specaug}, "steps": 200_000}
    write_errors(tmp_path / "one", "asr", "wer", [(1, 4)], identity("one"), splits=names, **settings)
    assert make_report([tmp_path], draws=100)["off_official"] == {
        "pr": ["librispeech_train a,b instead of train-clean-100"],
        "asr": ["specaug.num_freq_mask 2 instead of 4"],
        "sid": ["synthetic demo corpus"],
    }


def test_the_rate_that_a_search_chose_is_no_other_recipe(tmp_path):
    for name, lr in (("one", 0.1), ("two", 0.01)):
        settings = {"lr": [0.1, 0.01]}
        write_accuracy(tmp_path / name, "sid", HALF, identity(name), settings=settings, lr=lr)
    report = make_report([tmp_path], base="one", draws=100)
    assert report["footnotes"] == {} and rows_of(report)["two"]["cells"]["sid.acc"]["difference"]["mean"] == 0


def test_features_that_did_not_fit_are_no_other_recipe_where_nothing_is_cropped():
    told = {}
    for task in ("pr", "er", "sid", "ks", "asv"):
        one = {"task": task, "settings": read_group("superb", task), "data": "x"}
        told[task] = differences(recipe({**one, "streamed": ["train"]}), recipe(one))
    assert told["pr"] == told["er"] == []
    assert all(told[task][0].startswith("crops drawn anew instead of ") for task in ("sid", "ks", "asv"))


def test_how_many_processes_worked_is_no_recipe():
    old = {"task": "sid", "lr": 0.01, "settings": {"lr": 0.01, "num_workers": 4, "workers": None}}
    new = {"task": "sid", "lr": 0.01, "settings": {"lr": [0.01], "num_workers": 0, "workers": 8}}
    assert differences(recipe(old), recipe(new)) == []
    assert differences(recipe(new), recipe({**new, "settings": {"lr": [0.1, 0.01]}})) == [
        "lr 0.01 instead of [0.01, 0.1]"
    ]


def test_scores_on_other_lists_are_marked(run, tmp_path):
    """The same audio with another lexicon has other phones to be found; frames in half precision are others."""
    base = tmp_path / "runs" / "superb" / "base"
    for name, source in (("mine-alpha-0.25", "w25"), ("mine-alpha-0.5", "w50")):
        alpha = name.removeprefix("mine-")
        upstream = identity(source, source=str(run / "merged" / alpha))
        lists = {"lexicon": ["b" if source == "w25" else "a"], "phones": ["c"]}
        write_errors(run / "superb" / name, "pr", "per", [(1, 10), (0, 30)], upstream, lists=lists)
    write_errors(base, "pr", "per", [(4, 10), (0, 30)], identity("w0"), lists={"lexicon": ["a"], "phones": ["c"]})
    write_accuracy(run / "superb" / "mine-alpha-0.5", "sid", HALF, upstream, frames_dtype="float16")
    report = make_report([run], draws=100)
    cells = {name: row["cells"] for name, row in rows_of(report).items()}
    assert cells["mine-alpha-0.25"]["pr.per"]["difference"] is None
    assert cells["mine-alpha-0.5"]["pr.per"]["difference"]["mean"] == pytest.approx(-7.5)
    assert cells["mine-alpha-0.5"]["sid.acc"]["difference"] is None
    assert list(report["footnotes"].values()) == [
        "PR: another lexicon (base)", "SID: frames_dtype float16 instead of float32 (base)"
    ]  # fmt: skip
    # results from before lists were written down are taken as they were
    write_errors(base, "pr", "per", [(4, 10), (0, 30)], identity("w0"))
    report = make_report([run], draws=100)
    assert rows_of(report)["mine-alpha-0.25"]["cells"]["pr.per"]["difference"]["mean"] == pytest.approx(-7.5)


def test_an_unfinished_evaluation_leaves_gaps(run):
    (run / "superb" / "mine-alpha-0.5" / "pr.json").unlink()
    (run / "superb" / "mine-alpha-0.5" / "pr.utterances.jsonl").unlink()
    report = make_report([run], draws=100)
    assert "pr.per" not in rows_of(report)["mine-alpha-0.5"]["cells"]
    assert "| **mine-alpha-0.5** | – | 50.00 [" in report["markdown"]
    assert report["superb_s"]["tasks"] == ["sid"]
    assert report["superb_s"]["left_out"] == {"pr": "no score of mine-alpha-0.5"}


def test_damaged_results_are_told_and_left_out(run):
    target = run / "superb" / "mine-alpha-0.25"
    (target / "pr.json").write_text("{")
    (target / "sid.utterances.jsonl").write_text("no json\n")
    report = make_report([run], draws=100)
    cell = rows_of(report)["mine-alpha-0.25"]["cells"]
    assert set(cell) == {"sid.acc"} and cell["sid.acc"]["mean"] == 75 and cell["sid.acc"]["interval"] is None
    assert cell["sid.acc"]["difference"] == {"mean": 25, "interval": None, "verdict": None}
    notes = "\n".join(report["notes"])
    assert "left out" in notes and "pr.json is not valid JSON" in notes and "sid.utterances.jsonl is damaged" in notes
    assert "| **mine-alpha-0.25** | +25.00 |" not in report["markdown"]  # a gap before it
    assert "| **mine-alpha-0.25** | – | +25.00 |" in report["markdown"]


def test_utterances_that_do_not_give_the_score_are_not_believed(tmp_path):
    write_result(tmp_path / "m", "ks", {"acc": 0.9}, [{"file": "a", "correct": 1}], identity("m"))
    write_result(tmp_path / "m", "qbe", {"mtwv": 0.0736}, [{"query": "q", "hits": 3}], identity("m"))
    report = make_report([tmp_path], draws=100)
    cells = report["rows"][0]["cells"]
    assert cells["ks.acc"]["mean"] == 90 and cells["ks.acc"]["interval"] is None
    assert cells["qbe.mtwv"]["mean"] == pytest.approx(7.36) and cells["qbe.mtwv"]["interval"] is None
    assert "records acc 90.00, but its utterances give 100.00" in report["markdown"]
    assert "are of no known shape" in report["markdown"]


def test_metrics_of_every_task(tmp_path):
    upstream = identity("m")
    write_errors(tmp_path / "m", "pr", "per", [(1, 10)], upstream)
    write_errors(tmp_path / "m", "asr", "wer", [(6, 100)], upstream)
    write_accuracy(tmp_path / "m", "ks", MORE, upstream)
    write_accuracy(tmp_path / "m", "ic", MORE, upstream)
    write_accuracy(tmp_path / "m", "sid", MORE, upstream)
    write_accuracy(tmp_path / "m", "er", MORE, upstream)
    slots = [{"file": "a", "score": 0.8, "value_errors": 1, "value_length": 4}]
    write_result(tmp_path / "m", "sf", {"slot_type_f1": 0.8, "slot_value_cer": 0.25}, slots, upstream)
    trials = [{"trial": str(n), "score": score, "label": label}
              for n, (score, label) in enumerate([(0.9, 1), (0.8, 0), (0.7, 1), (0.6, 0)] * 5)]  # fmt: skip
    write_result(tmp_path / "m", "asv", {"eer": 0.5}, trials, upstream)
    write_errors(tmp_path / "m", "sd", "der", [(5, 100)], upstream)
    write_result(tmp_path / "m", "qbe", {"mtwv": 0.0736}, None, upstream)
    report = make_report([tmp_path], draws=100)
    means = {key: round(cell["mean"], 6) for key, cell in report["rows"][0]["cells"].items()}
    assert means == {
        "pr.per": 10, "asr.wer": 6, "ks.acc": 75, "ic.acc": 75, "sid.acc": 75, "er.acc": 75, "sf.slot_type_f1": 80,
        "sf.slot_value_cer": 25, "asv.eer": 50, "sd.der": 5, "qbe.mtwv": 7.36,
    }  # fmt: skip
    assert list(means) == [column["key"] for column in report["columns"]]
    without = [key for key, cell in report["rows"][0]["cells"].items() if cell["interval"] is None]
    assert without == ["qbe.mtwv"]
    assert len(report["superb_s"]["tasks"]) == 10 and report["superb_s"]["left_out"] == {}
    assert {column["key"]: column["higher_better"] for column in report["columns"]}["sf.slot_value_cer"] is False
    hubert = next(row for row in report["published"] if row["name"] == "HuBERT Base")
    assert hubert["values"]["qbe.mtwv"] == 7.36 and hubert["superb_s"] == pytest.approx(941, abs=15)


def test_two_pretrained_upstreams_each_with_its_own(tmp_path):
    for letter, hits in (("a", HALF), ("b", MORE)):
        run = write_run(tmp_path / letter, f"{letter}0", f"{letter}1", {0.25: f"{letter}25"})
        write_accuracy(run / "superb" / f"{letter}-base", "sid", hits, identity(f"{letter}0"))
        merged = identity(f"{letter}25", source=str(run / "merged" / "alpha-0.25"))
        write_accuracy(run / "superb" / f"{letter}-alpha-0.25", "sid", MORE, merged)
    report = make_report([tmp_path / "a", tmp_path / "b"], draws=100)
    bases = {row["name"]: row["base"] for row in report["rows"]}
    assert bases == {"a-base": None, "b-base": None, "a-alpha-0.25": "a-base", "b-alpha-0.25": "b-base"}
    assert "**a-alpha-0.25** (against a-base)" in report["markdown"]
    assert [plot["file"] for plot in report["plots"]] == ["alpha-1.png", "alpha-2.png"]


def test_one_run_after_another_whichever_is_named_first(tmp_path):
    """What the second started from is the first's fine-tuned model: α = 1 of one curve and α = 0 of the other."""
    one, two = (write_run(tmp_path / name, *rest) for name, *rest in (
        ("one", "w0", "w1", {0.25: "w25"}), ("two", "w1", "w2", {0.25: "v25"})
    ))  # fmt: skip
    write_accuracy(one / "superb" / "base", "sid", HALF, identity("w0"))
    write_accuracy(one / "superb" / "one-finetuned", "sid", MORE, identity("w1", source=str(one / "finetuned")))
    write_accuracy(two / "superb" / "two-alpha-0.25", "sid", [1] * 20,
                   identity("v25", source=str(two / "merged" / "alpha-0.25")))  # fmt: skip
    for paths in ([one, two], [two, one]):
        report = make_report(paths, draws=100, out=tmp_path / "o")
        assert sorted((plot["curves"]["sid.acc"] for plot in report["plots"]), key=str) == [
            {"one": {0.0: [50], 1.0: [75]}}, {"two": {0.0: [75], 0.25: [100]}}
        ]  # fmt: skip
        assert [(row["name"], row["base"], row["alpha"]) for row in report["rows"]] == [
            ("base", None, 0.0), ("one-finetuned", None, 1.0), ("two-alpha-0.25", "one-finetuned", 0.25)
        ]  # fmt: skip


def test_a_run_that_was_scored_beside_its_upstream_is_found_there(run, tmp_path):
    expected = make_report([run], draws=100)
    for folder in sorted((run / "superb").iterdir()):
        folder.rename(tmp_path / "runs" / "superb" / folder.name)
    write_accuracy(tmp_path / "runs" / "superb" / "other", "sid", MORE, identity("w7"))
    report = make_report([run], draws=100)
    assert report["folder"] == str(run)
    for ours, theirs in zip(report["rows"], expected["rows"], strict=True):
        assert {**ours, "results": None} == {**theirs, "results": None}
    assert f"the scores of mine are from {tmp_path}/runs/superb" in report["notes"]


def test_a_folder_written_again_does_not_lend_its_alpha(run):
    note = run / "merged" / "alpha-0.5" / "merge.json"
    note.write_text(note.read_text().replace("w50", "w50-new"))
    row = rows_of(make_report([run], draws=100))["mine-alpha-0.5"]
    assert row["alpha"] is None


def test_nothing_to_report(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path / "runs"))
    with pytest.raises(UsageError, match="does not exist; give a run's folder"):
        make_report([tmp_path / "nowhere"])
    with pytest.raises(SpeechFTError, match="holds no finished evaluation; score it first: speechft eval superb"):
        make_report([tmp_path])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "sid.json").write_text('{"task": "sid"}')
    with pytest.raises(SpeechFTError, match=r"no finished evaluation \(left out: .*sid.json is not the result"):
        make_report([tmp_path])
    with pytest.raises(UsageError, match="there is no latest run"):
        make_report([])
    with pytest.raises(UsageError, match="5 draws are too few"):
        make_report([tmp_path], draws=5)
