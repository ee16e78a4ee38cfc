"""IC from the Python call to the JSON files, and what its tables must hold."""

from __future__ import annotations

import csv
import io
import json

import pytest
from small import superb_settings
from tiny_corpora import RECIPES
from tiny_pooled import INTENTS, make_fluent_commands

from speechft.console import Progress
from speechft.errors import SpeechFTError
from speechft.superb.evaluate import evaluate
from speechft.superb.tasks import get_task


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_end_to_end(engine, configuration, upstream, corpora, tmp_path):
    cfg = configuration({"steps": 30, "eval_step": 15})
    result = evaluate([upstream], ["ic"], engine, cfg=cfg, progress=Progress(io.StringIO()))[0]
    assert list(result["metrics"]) == ["acc"] and result["loss"] > 0 and result["steps"] == 30
    lines = [json.loads(line) for line in (tmp_path / "out" / "tiny" / "ic.utterances.jsonl").open()]
    assert result["metrics"]["acc"] == pytest.approx(sum(line["correct"] for line in lines) / len(lines))
    # s3prl's own files of guesses and truths: right is who has all three slots
    tables = []
    for kind in ("predict", "truth"):
        path = next((tmp_path / "out" / "tiny").rglob(f"test_{kind}.csv"))
        tables.append([tuple(row) for row in csv.reader(path.open())])
    names = [row[0] for row in tables[1]]
    assert [line["file"] for line in lines] == names and len(set(names)) == 2 * len(INTENTS)
    assert {row[1:] for row in tables[1]} == set(INTENTS)
    assert [line["correct"] for line in lines] == [int(a == b) for a, b in zip(*tables, strict=True)]


def test_what_is_missing_inside(tmp_path):
    task, settings = get_task("ic"), {**superb_settings()["superb"]["ic"], **RECIPES["ic"]}
    data = {"fluent_commands": str(tmp_path)}
    with pytest.raises(SpeechFTError, match=r"has no data/train_data.csv, data/valid_data.csv, data/test_data.csv"):
        task.check(data, settings)
    data = {"fluent_commands": str(tmp_path / "fsc")}
    make_fluent_commands(tmp_path / "fsc")
    task.check(data, settings)
    (tmp_path / "fsc" / "wavs" / "speakers" / "test0" / "test01-aa.wav").unlink()
    table = tmp_path / "fsc" / "data" / "valid_data.csv"
    table.write_text(table.read_text().replace("newspaper", "tea"))
    with pytest.raises(SpeechFTError) as error:
        task.check(data, settings)
    message = str(error.value)
    assert "valid_data.csv has object tea, which train_data.csv has not" in message and "\n" not in message
    assert "1 of the 8 files of" in message and "(wavs/speakers/test0/test01-aa.wav)" in message
    table.write_text(table.read_text().replace("location", "where"))
    with pytest.raises(SpeechFTError, match=r"valid_data.csv has no column location"):
        task.check(data, settings)
