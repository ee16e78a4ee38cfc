"""A task of the user's own: the one of docs/own_task.md trains; what cannot work is said in a line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_labelled import word_wave

from speechft.errors import UsageError
from speechft.tasks.build import build_task
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "own_task.md"


def _example() -> str:
    return DOCUMENT.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """One to four words a second: as many tones in a second, with silence after each."""
    root, lines = tmp_path_factory.mktemp("rates"), ["id\tpath\tsplit\tspeaker\ttext"]
    generator = np.random.default_rng(0)
    for number in range(40):
        count = number % 4 + 1
        words = [word_wave("AB", "ann", "neutral", 0.1, generator) for _ in range(count)]
        wave = np.concatenate([np.pad(word, (0, 8000 // count - 1600)) for word in words])
        soundfile.write(root / f"u{number}.wav", wave, 16_000)
        lines.append(f"u{number}\tu{number}.wav\t{'train' if number < 28 else 'dev'}\tann\t{' '.join(['AB'] * count)}")
    (root / "utterances.tsv").write_text("\n".join(lines) + "\n")
    return root / "utterances.tsv"


def test_the_documented_task_is_short_and_trains(table, tmp_path):
    code = _example()
    assert len(code.splitlines()) < 40 and "class SpeakingRate(Task)" in code
    (tmp_path / "speaking_rate.py").write_text(code)
    run = finetune(
        ["task=own", f"task.kind={tmp_path}/speaking_rate.py:SpeakingRate", "+task.hidden=64", "task.head_lr=5e-3",
         "data=tsv", f"data.table={table}", "data.train_where={split: train}", "data.dev_where={split: dev}",
         "data.train_speakers=null", "data.dev_speakers=null", "data.batch_size=8", "data.workers=0",
         "trainer.steps=48", "trainer.lr=5e-4", "trainer.eval_every=4", "trainer.device=cpu", "trainer.threads=1"],
        tmp_path / "run",
    )  # fmt: skip
    errors = [line["dev_mean_error"] for line in read_metrics(run.metrics) if "dev_mean_error" in line]
    assert errors[0] > 1.0 and errors[-1] < 0.6, errors  # rates of 2, 4, 6 and 8: knowing none costs 2


def test_a_module_that_python_can_import_does_as_well():
    task = build_task({"kind": "speechft.tasks.spin:Spin", "codewords": 8})
    assert type(task).__name__ == "Spin"


def test_mistakes_are_explained(tmp_path):
    good = _example()
    for name, code, message in (
        ("SpeakingRat", good, r"has no task 'SpeakingRat' .*; its tasks: SpeakingRate"),
        ("SpeakingRate", good.replace("def summary", "def summery"), "SpeakingRate lacks summary; see"),
        ("SpeakingRate", good.replace("import torch", "import torhc"), r"does not load \(ModuleNotFoundError"),
        ("SpeakingRate", good.replace("(Task)", "(nn.Module)"), "its tasks: none"),
        ("SpeakingRate", good.replace("name, metric,", "name, metrik,"), "has no metric; see"),
    ):  # fmt: skip
        (tmp_path / "mine.py").write_text(code)
        with pytest.raises(UsageError, match=message):
            build_task({"kind": f"{tmp_path}/mine.py:{name}"})
    (tmp_path / "mine.py").write_text(good)
    with pytest.raises(UsageError, match="unexpected keyword argument 'wide'"):
        build_task({"kind": f"{tmp_path}/mine.py:SpeakingRate", "wide": 3})
    with pytest.raises(UsageError, match="no such file"):
        build_task({"kind": "nowhere.py:Mine"})
    with pytest.raises(UsageError, match=r"or your own: path/to/file.py:ClassName"):
        build_task({"kind": "nowhere"})
