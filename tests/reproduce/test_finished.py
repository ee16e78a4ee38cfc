"""What counts as finished: the same settings, and results that are newer than the weights they are of."""

from __future__ import annotations

import json
import os
from pathlib import Path

from speechft.config.compose import compose, differences, write_config
from speechft.reproduce.finished import finished, tasks_left
from speechft.reproduce.plan import Stage, plan
from speechft.reproduce.request import read_request
from speechft.reproduce.rows import chosen
from speechft.superb.settings import Settings
from speechft.superb.tasks import get_task
from speechft.upstreams.base import Identity

DATA = ["data.tedlium3=/d/ted", "data.voxceleb1=/d/vox", "data.iemocap=/d/i"]


def stages(out: Path, *words: str) -> dict[str, Stage]:
    """By kind; of evaluations the merged model's."""
    return {stage.kind: stage for stage in plan(chosen(["hubert-asr"]), read_request([*DATA, *words], out, ["sid"]))}


def touch(path: Path, seconds: float, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (seconds, seconds))


def test_a_run_is_finished_with_its_own_configuration(tmp_path):
    train = stages(tmp_path)["train"]
    assert not finished(train)
    touch(train.makes[0], 100)
    assert not finished(train)  # and where is its configuration?
    write_config(tmp_path / "runs/hubert-asr/config.yaml", compose("train", train.words[1:-2]))
    assert finished(train)
    assert finished(stages(tmp_path, "train.data.workers=9", "train.trainer.device=cpu")["train"])
    assert not finished(stages(tmp_path, "train.trainer.lr=1e-3")["train"])
    assert not finished(stages(tmp_path, "data.tedlium3=/elsewhere")["train"])


def test_the_reasons_for_deviations_are_no_part_of_a_run():
    before = compose("train", ["experiment=paper/asr", "data.root=/x"])
    after = {**before, "paper": {**before["paper"], "deviations": {"other": "words"}}}
    assert differences(before, after) == []


def test_a_merge_is_finished_if_it_is_newer_than_its_runs(tmp_path):
    merge = stages(tmp_path)["merge"]
    touch(merge.needs[0], 100)
    assert not finished(merge)
    touch(merge.makes[0], 200)
    assert finished(merge)
    touch(merge.needs[0], 300)
    assert not finished(merge)


def test_a_score_is_finished_if_it_would_be_taken(tmp_path):
    scored = stages(tmp_path)["eval"]
    upstream = Identity("mine", "hubert", "/m", False, "abc")
    words = [*DATA[1:], "superb.sid.lr=[1e-1,1e-2,1e-3,1e-4]"]
    settings = Settings.read({**compose("eval", words), "tasks": ["sid"], "out": str(tmp_path)})
    record = {"upstream": upstream.as_dict(), "fingerprint": settings.fingerprint(get_task("sid"), upstream.key)}
    touch(scored.needs[0], 100)
    assert tasks_left(scored) == ["sid"]
    touch(scored.makes[0], 200, json.dumps(record))
    assert finished(scored) and tasks_left(scored) == []
    assert finished(stages(tmp_path, "eval.superb.sid.num_workers=1")["eval"])
    for other in ("eval.superb.sid.steps=5", "eval.lr=[1e-1,1e-2]", "eval.engine=s3prl", "eval.seed=1",
                  "eval.precision=bf16"):  # fmt: skip
        assert not finished(stages(tmp_path, other)["eval"]), other
    touch(scored.needs[0], 300)  # merged again since
    assert not finished(scored)
    touch(scored.makes[0], 400, "{damaged")
    assert not finished(scored)
