"""What the checks of documented commands find: each of these would stand in a page by mistake."""

import subprocess

import pytest
import yaml
from doc_blocks import PAGES, Block, blocks
from doc_commands import check, reach
from doc_words import commands
from test_code_blocks import _look, _look_at_span

from speechft.errors import UsageError

WRONG = [
    ("speechft trian task=asr", "no command 'trian'"),
    ("speechft train trainer.stepss=5", "unknown key 'trainer.stepss'"),
    ("speechft train task=asr data=librispeech", "data.root has no value"),
    ("speechft train upstream=hubert_bass", "unknown upstream"),
    ("speechft train strategy.layer_decay=1.5", "layer_decay"),
    ("speechft train -m seed=0,1 task=nosuch", "unknown task"),
    ("torchrun --nproc_per_node=2 -m speechft train trainer.lr=-1", "trainer.lr is -1"),
    ("speechft merge --alpha 1.5", "outside"),
    ("speechft merge --method tie", "unknown merge method"),
    ("speechft merge --method ties --set densty=0.5", "no parameter 'densty'"),
    ("speechft merge --method fisher", "statistics"),
    ("speechft merge --alpha-at layer.3=0.5", "no tensor matches"),
    ("speechft merge --alpha auto --score superb --tasks pid", "unknown SUPERB task"),
    ("speechft eval superb hubert_bas --tasks sid", "no upstream 'hubert_bas'"),
    ("speechft eval superb hubert_base --task sid", "--task"),
    ("speechft eval superb hubert_base --tasks sid data.voxceleb=/data", "unknown key 'data.voxceleb'"),
    ("speechft eval superb hubert_base --tasks sid lr=[0]", "superb.sid.lr"),
    ("speechft report --plots gif", "gif"),
    ("speechft report --reference superbb", "superbb"),
    ("speechft convert a.pt b/ --to fairseq", "invalid choice"),
    ("speechft doctor data.libri=/data", "unknown key"),
    ("scripts/bench trane", "unknown comparison"),
    ("scripts/bench train --step 5", "--step"),
    ("scripts/reproduce hubert-asrr --dry-run", "unknown row"),
    ("scripts/reproduce hubert-asr data.tedlium=/data", "unknown data.tedlium"),
    ("scripts/tests", "not there"),
    ("pip install 'speechft[demos]'", "no extra 'demos'"),
    ("rm -r runs", "not checked"),
]


@pytest.mark.parametrize(("command", "message"), WRONG, ids=[command for command, _ in WRONG])
def test_mistakes_are_found(command, message):
    with pytest.raises((UsageError, AssertionError)) as caught:
        for words in commands(command):
            check(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "span", ["--alphaa 0.5", "trainer.stepz=5", "speechft/superb/nothing.py", "speechft evaluate x"]
)
def test_mistakes_in_sentences_are_found(span):
    with pytest.raises((UsageError, AssertionError)):
        _look_at_span(span)


@pytest.mark.parametrize(
    ("language", "text"),
    [("bash", "if true; then"), ("python", "import torch"), ("python", "def"), ("yaml", "a: [1"), ("json", "{'a': 1}"),
     ("tsv", "a\tb\nc"), ("text", "speechft train"), ("cobol", "STOP RUN.")],
)  # fmt: skip
def test_mistakes_in_blocks_are_found(language, text):
    with pytest.raises((AssertionError, SyntaxError, ValueError, yaml.YAMLError, subprocess.CalledProcessError)):
        _look(Block(PAGES[1], 1, language, text))


def test_what_is_left_out_may_be():
    reach(["train", "task=asr", "data=librispeech", "..."])
    reach(["eval", "superb", "hubert_base", "--tasks", "pr", "data.librispeech=...", "data.lexicon=..."])
    reach(["doctor", "data.KEY=PATH"])


def test_bash_becomes_words():
    text = """
    for seed in 3 4; do  # each
      speechft train seed=$seed 'strategy.frozen_parts=[cnn]' \\
          --out "runs/$seed" > log && speechft merge
    done
    first=$(hostname) # a variable
    srun x --to "$first:1" | head -n 1
    """
    assert list(commands(text)) == [
        ["speechft", "train", "seed=3", "strategy.frozen_parts=[cnn]", "--out", "runs/3"],
        ["speechft", "merge"],
        ["srun", "x", "--to", "value:1"],
        ["head", "-n", "1"],
    ]


def test_blocks_and_their_marks_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("doc_blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n\n<!-- test: run with thing -->\n```bash\na\n```\n\n- item\n\n    not code\n\n"
        "text\n\n    b \\\n        c\n\n"
        "<!-- test: no (because) -->\n\n~~~python\nd\n~~~\n<!-- test: slow -->\nwords\n```text\ne\n```\n"
    )
    found = [(one.language, one.text, one.how, one.fixture, one.why) for one in blocks(page)]
    assert found == [
        ("bash", "a\n", "run", "thing", None), ("indented", "b \\\n    c\n", None, None, None),
        ("python", "d\n", "no", None, "because"), ("text", "e\n", None, None, None),
    ]  # fmt: skip
    page.write_text("<!-- test: quickly -->\n")
    with pytest.raises(ValueError, match="not understood"):
        blocks(page)


@pytest.mark.parametrize("words", [
    "scripts/card TABLE WORK --seed one", "scripts/card TABLE", "scripts/crops asr a.tsv WORK",
    "scripts/arrange mine.tsv",
    "scripts/study DATA WORK hubert_nano --scenario er", "scripts/study DATA WORK", "scripts/reproduce hubert-x",
    "scripts/compare_strategies stabel", "scripts/compare_strategies --seed 0 stable", "scripts/nothing",
    "scripts/_environment.py x",
])  # fmt: skip
def test_words_that_a_script_does_not_take_are_found(words):
    with pytest.raises((UsageError, AssertionError)):
        check(words.split())


@pytest.mark.parametrize("words", [
    "scripts/card TABLE WORK --columns pr --seeds 1 2", "scripts/crops sid a.tsv WORK --few 12",
    "scripts/arrange a.tsv out",
    "scripts/study DATA WORK hubert_nano x=weights/x --scenarios pr", "scripts/study DATA WORK --page",
    "scripts/compare_strategies --seeds 0 stable frozen_downstream trainer.steps=4",
])  # fmt: skip
def test_words_that_a_script_takes(words):
    check(words.split())
