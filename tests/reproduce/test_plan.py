"""From rows to commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from speechft.errors import UsageError
from speechft.reproduce import cost
from speechft.reproduce.command import main
from speechft.reproduce.deviations import of_rows
from speechft.reproduce.plan import deviations_of, plan
from speechft.reproduce.request import override, read_request
from speechft.reproduce.rows import chosen, rows

SUPERB = [
    "data.librispeech=/d/ls",
    "data.lexicon=/d/lex",
    "data.voxceleb1=/d/vox",
    "data.iemocap=/d/i",
    "data.snips=/d/s",
]
DATA = [*SUPERB, "data.tedlium3=/d/ted", "data.aishell3=/d/a"]


def commands(names, tmp_path, *words, **options):
    return plan(chosen(names), read_request([*DATA, *words], tmp_path, **options))


def test_the_rows_are_the_papers():
    """Every upstream with every scenario, but for one that cannot be."""
    names = set(rows())
    for upstream in ("hubert", "wav2vec2", "decoar2", "wavlm"):
        for row in ("asr", "asr-regular", "asr-l2", "asr-lora", "asr-dora", "asr-early", "pr", "sid", "er", "spin",
                    "multitask-merged", "multitask-sequential", "multitask-joint"):  # fmt: skip
            assert f"{upstream}-{row}" in names
    assert {name for name in names if "aishell3" in name and "regular" not in name} == {
        "hubert-aishell3", "wav2vec2-aishell3", "wavlm-aishell3",
    }  # fmt: skip
    with pytest.raises(
        UsageError, match=r"no row decoar2-aishell3: DeCoAR 2\.0's published file has no mask embedding"
    ):
        chosen(["decoar2-aishell3"])
    with pytest.raises(UsageError, match="unknown row 'hubert-x'"):
        chosen(["hubert-x"])


def test_one_row_is_trained_merged_scored_and_reported(tmp_path):
    out = tmp_path.resolve()
    told = [stage.command for stage in commands(["hubert-asr"], tmp_path)]
    merged = f"{out}/runs/hubert-asr/merged/alpha-0.25"
    scored = (
        "data.librispeech=/d/ls data.lexicon=/d/lex data.voxceleb1=/d/vox data.snips=/d/s "
        "'superb.sid.lr=[0.1,0.01,0.001,0.0001]'"
    )
    assert told == [
        f"speechft train experiment=paper/asr upstream=hubert_base data.root=/d/ted --out {out}/runs/hubert-asr",
        f"speechft merge {out}/runs/hubert-asr --alpha 0.25",
        f"speechft eval superb hubert_base --tasks pr,asr,sid,sf {scored} --out {out}/superb",
        f"speechft eval superb hubert_base --tasks er data.iemocap=/d/i --out {out}/superb-er",
        f"speechft eval superb {merged} --tasks pr,asr,sid,sf {scored} --out {out}/superb",
        f"speechft eval superb {merged} --tasks er data.iemocap=/d/i --out {out}/superb-er",
        f"speechft report {out}/superb/hubert_base {out}/superb-er/hubert_base {out}/superb/hubert-asr-alpha-0.25 "
        f"{out}/superb-er/hubert-asr-alpha-0.25 --reference speech-ft --out {out}/report/asr",
    ]


def test_baselines_are_scored_as_they_are(tmp_path):
    stages = commands(["wavlm-asr-regular"], tmp_path, tasks=["sid"])
    assert [stage.kind for stage in stages] == ["train", "eval", "eval", "report"]
    assert stages[2].words[2].endswith("runs/wavlm-asr-regular/finetuned")
    assert "upstream=wavlm_base_plus" in stages[0].words and "experiment=paper/asr_regular" in stages[0].words
    assert "experiment=paper/er_regular" in commands(["hubert-er-regular"], tmp_path)[0].words


@pytest.mark.parametrize("told", ["eval.lr=[1e-2,1e-3]", "eval.superb.sid.lr=1e-2", "eval.+superb.sid.lr=1e-2"])
def test_sids_rate_is_searched_unless_the_user_says_otherwise(told, tmp_path):
    def rates(*words):
        stages = [stage for stage in commands(["hubert-sid"], tmp_path, *words) if stage.kind == "eval"]
        return {tuple(word for word in stage.words if "lr=" in word) for stage in stages if "sid" in stage.words[4]}

    assert rates() == {("superb.sid.lr=[0.1,0.01,0.001,0.0001]",)}
    assert rates(told) == {(told.removeprefix("eval."),)}
    assert "rate" in of_rows(chosen(["hubert-sid"]), read_request([], tmp_path))["scoring"]
    assert "rate" not in of_rows(chosen(["hubert-sid"]), read_request([told], tmp_path))["scoring"]


def test_deviations_that_rows_share_are_said_once(tmp_path):
    request = read_request([], tmp_path)
    found = of_rows(chosen(["hubert-asr", "hubert-pr-regular", "hubert-multitask-merged"]), request)
    assert list(found) == [
        "all", "paper/asr", "paper/pr_regular", "paper/sid", "paper/er", "hubert-multitask-merged", "scoring",
    ]  # fmt: skip
    assert {"checkpoint", "schedule"} <= found["all"].keys() and "freeze" not in found["all"]
    assert "is really frozen" in found["paper/asr"]["freeze"] and "none of the" in found["paper/pr_regular"]["freeze"]
    (alone,) = (one for name, one in of_rows(chosen(["hubert-asr"]), request).items() if name == "all")
    assert alone == deviations_of("paper/asr")


@pytest.mark.parametrize(
    "free, together, problems", [(30e9, True, 1), (41e9, True, 0), (30e9, False, 0), (19e9, False, 2)]
)
def test_what_goes_to_one_disk_must_fit_there_together(free, together, problems, tmp_path, monkeypatch):
    """20 GB of runs and 20 GB of features."""
    (tmp_path / "features").mkdir()
    device = {tmp_path / "features": 1 if together else 2}
    monkeypatch.setattr(cost, "_disk", lambda folder: (device.get(folder, 1), int(free)))
    request = read_request([f"eval.store={tmp_path}/features"], tmp_path)
    stages = plan(chosen(["hubert-sid"]), request)
    costs = [
        cost.Cost(1.0, disk=20e9 * (stage.kind == "train"), store=20e9 * (n == 2)) for n, stage in enumerate(stages)
    ]
    lines, found = cost.space(stages, costs, [False] * len(stages), request)
    assert len(found) == problems and len(lines) == 2
    if together and problems:
        assert "runs and merged models and features take 40.0 GB" in found[0] and "30.0: move" in found[0]


def test_what_heard_iemocap_is_scored_on_fold_1_alone_and_so_is_its_upstream(tmp_path):
    for row in ("hubert-er", "hubert-multitask-merged", "hubert-multitask-joint"):
        stages = [stage for stage in commands([row], tmp_path) if stage.kind == "eval" and stage.words[4] == "er"]
        assert len(stages) == 2
        for stage in stages:
            assert "superb.er.folds=[1]" in stage.words and stage.words[-1].endswith("superb-er-fold1")
    both = commands(["hubert-er", "hubert-asr"], tmp_path)
    places = {stage.words[-1]: stage.words for stage in both if stage.kind == "report"}
    assert "superb-er-fold1" in " ".join(places[f"{tmp_path.resolve()}/report/er"])
    assert "superb-er/" in " ".join(places[f"{tmp_path.resolve()}/report/asr"])


def test_shared_stages_are_there_once(tmp_path):
    stages = commands(["hubert-asr", "hubert-asr-l2", "hubert-multitask-merged", "hubert-sid"], tmp_path)
    assert len({stage.words for stage in stages}) == len(stages)
    assert [stage.row for stage in stages if stage.kind == "train"] == [
        "hubert-asr", "hubert-asr-l2", "hubert-sid", "hubert-er",
    ]  # fmt: skip
    pretrained = [stage for stage in stages if stage.kind == "eval" and stage.words[2] == "hubert_base"]
    assert len(pretrained) == 3  # pr,asr,sid,sf; er; er on fold 1
    merge = next(stage for stage in stages if stage.row == "hubert-multitask-merged" and stage.kind == "merge")
    runs = f"{tmp_path.resolve()}/runs"
    assert list(merge.words) == [
        "merge", "--pretrained", "hubert_base", "--finetuned", f"{runs}/hubert-asr/finetuned",
        f"{runs}/hubert-sid/finetuned", f"{runs}/hubert-er/finetuned", "--alpha", "0.25",
        "--out", f"{runs}/hubert-multitask-merged/merged",
    ]  # fmt: skip


def test_steps_can_be_scaled_and_words_are_handed_on(tmp_path):
    words = ["train.trainer.precision=bf16", "eval.precision=bf16", "upstream.hubert_base=/m/hubert.pt"]
    stages = commands(["hubert-multitask-sequential"], tmp_path, *words, scale=0.001, tasks=["pr"])
    train, scored = stages[0].words, stages[2].words
    assert "trainer.precision=bf16" in train and "upstream.source=/m/hubert.pt" in train
    assert [word for word in train if "steps=" in word] == [
        "trainer.steps=50", "task.tasks.asr.trainer.steps=50", "task.tasks.sid.trainer.steps=30",
        "task.tasks.er.trainer.steps=30",
    ]  # fmt: skip
    assert scored[2] == "/m/hubert.pt" and "precision=bf16" in scored
    assert "superb.pr.steps=100" in scored and "superb.pr.eval_step=50" in scored


def test_paths_come_from_words_and_files(tmp_path):
    file = tmp_path / "paths.yaml"
    file.write_text("data: {tedlium3: /a b/ted, librispeech: /ls}\ntrain: {trainer.precision: bf16}\n")
    request = read_request(["data.librispeech=/mine", "train.+x=1"], tmp_path, file=file)
    assert request.data == {"tedlium3": "/a b/ted", "librispeech": "/mine"}
    assert request.train == ("trainer.precision=bf16", "+x=1")
    stage = plan(chosen(["hubert-asr"]), request)[0]
    assert "data.root='/a b/ted'" in stage.words and "data.root='/a b/ted'" in shlex.split(stage.command)
    assert override("lexicon", "[/a,/b]") == "lexicon=[/a,/b]"
    for words, said in ((["data.tedlum=/x"], r"unknown data\.tedlum"), (["upstream.x=/x"], r"unknown upstream\.x"),
                        (["steps=4"], "is none of data.NAME=PATH")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            read_request(words, tmp_path)
    with pytest.raises(UsageError, match="scale is 2"):
        read_request([], tmp_path, scale=2)
    file.write_text("paths: {a: b}")
    with pytest.raises(UsageError, match="'paths' is no section"):
        read_request([], tmp_path, file=file)


def test_a_path_with_a_blank_composes(tmp_path):
    from speechft.config.compose import compose

    stage = plan(chosen(["hubert-asr"]), read_request([f"data.tedlium3={tmp_path}/it's, (a) place"], tmp_path))[0]
    assert compose("train", stage.words[1:-2])["data"]["root"] == f"{tmp_path}/it's, (a) place"


def test_the_command_lists_rows_and_explains_mistakes(capsys, tmp_path):
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows())
    assert main(["--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == rows().keys()
    assert main([]) == 2 and "name rows, or say --all" in capsys.readouterr().err
    assert main(["hubert-asr", "--all"]) == 2
    assert main(["hubert-asr", "--out", str(tmp_path), "data.x=1"]) == 2 and "unknown data.x" in capsys.readouterr().err
    assert Path(tmp_path, "runs").exists() is False
