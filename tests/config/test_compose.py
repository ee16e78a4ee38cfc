"""Every configuration composes; mistakes are explained."""

from pathlib import Path

import pytest
import yaml

from speechft.config.compose import compose, compose_section, differences
from speechft.config.locate import config_dir, group_names, read_group
from speechft.errors import UsageError


@pytest.mark.parametrize("group", ["upstream", "task", "strategy", "trainer"])
def test_every_choice_composes(group):
    needed = {"joint": "task.tasks={pr: {}}", "sequential": "task.tasks={pr: {}}", "own": "task.kind=mine.py:Mine"}
    for name in group_names(group):
        extra = "upstream.kind=mine.py:Mine" if (group, name) == ("upstream", "own") else needed.get(name)
        settings = compose("train", [f"{group}={name}", "data=synthetic", *filter(None, [extra])])
        assert settings[group] == {
            **settings[group],
            **{k: v for k, v in read_group(group, name).items() if k == "name"},
        }


@pytest.mark.parametrize("experiment", group_names("experiment"))
def test_every_experiment_composes(experiment):
    needed = {
        "pretrain_nano": ["data.speech=/x", "data.teacher=/y", "upstream.source=/third"],
        "pretrain_nano_third": ["data.speech=/x", "data.teacher=/y", "data.voices=/z", "upstream.source=/second"],
        "pretrain_nano_second": ["data.speech=/x", "data.teacher=/y", "data.voices=/z", "upstream.source=/first"],
        "pretrain_nano_first": ["data.speech=/x", "data.teacher=/y", "data.voices=/z"],
    }
    compose("train", [f"experiment={experiment}", *needed.get(experiment, [])])


@pytest.mark.parametrize("experiment", ["pretrain_nano", "pretrain_nano_second", "pretrain_nano_third"])
def test_a_round_of_pretraining_does_not_begin_from_its_own_end(experiment):
    given = ["data.speech=/x", "data.teacher=/y", "data.voices=/z"]
    with pytest.raises(UsageError, match=r"^upstream\.source has no value") as error:
        compose("train", [f"experiment={experiment}", *given])
    assert error.value.mend == "give it: upstream.source=..."
    upstream = compose("train", [f"experiment={experiment}", *given, "upstream.source=hubert_nano"])["upstream"]
    assert (upstream["name"], upstream["normalize"], upstream["dropout"]) == ("hubert_nano", True, 0.0)


def test_all_that_is_missing_is_named_at_once():
    """Not the list that they are interpolated into."""
    with pytest.raises(UsageError, match=r"^data\.speech, data\.teacher and data\.voices have no value") as error:
        compose("train", ["experiment=pretrain_nano_first"])
    assert error.value.mend == "give them: data.speech=... data.teacher=... data.voices=..."
    with pytest.raises(UsageError, match=r"^data\.teacher and data\.voices have no value"):
        compose("train", ["experiment=pretrain_nano_first", "data.speech=/x"])
    with pytest.raises(UsageError, match=r"^paper\.hours and paper\.seconds have no value"):
        compose_section("train", ["experiment=paper/_common"], "paper")


def test_every_file_opens_with_the_command_that_uses_it():
    for path in config_dir().rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines()[:3] if "@package" not in line]
        assert lines[0].startswith("# speechft "), path
        yaml.safe_load(path.read_text().replace("???", "null"))


def test_mistyped_keys_get_a_suggestion():
    with pytest.raises(UsageError, match=r"unknown key 'trainer\.stepss'; did you mean trainer\.steps"):
        compose("train", ["trainer.stepss=3"])
    with pytest.raises(UsageError, match=r"did you mean data\.table"):  # a key that not every choice has
        compose("train", ["data=tsv", "data.tabel=x"])
    with pytest.raises(UsageError, match=r"unknown key 'tsk'; did you mean task\?"):
        compose("train", ["tsk=asr"])


def test_a_key_of_another_choice_names_the_choice():
    with pytest.raises(UsageError, match=r"data=synthetic has no 'table'; add data=tsv, which has it$"):
        compose("train", ["data.table=mine.tsv", "task=pr"])
    with pytest.raises(UsageError, match=r"data=librispeech has no 'table'; add data=tsv"):
        compose("train", ["data=librispeech", "data.table=mine.tsv"])
    with pytest.raises(UsageError, match=r"task=own has no 'hidden'; \+task\.hidden=\.\.\. hands it to your class"):
        compose("train", ["task=own", "task.kind=mine.py:Mine", "task.hidden=32"])
    with pytest.raises(UsageError, match=r"'data\.table' is a key of speechft train; SUPERB's tasks read the official"):
        compose("eval", ["data.table=mine.tsv"])


@pytest.mark.parametrize("path", ["umlaut ä.tsv", "~/mine.tsv", "mine(2).tsv"])
def test_paths_that_hydra_cannot_read_are_quoted_twice(path):
    with pytest.raises(
        UsageError, match=r"cannot be read; a value with such characters is quoted twice: \"data\.table='"
    ):
        compose("train", ["data=tsv", "task=pr", f"data.table={path}"])
    assert Path(compose("train", ["data=tsv", "task=pr", f"data.table='{path}'"])["data"]["table"]).name in path


def test_a_word_that_the_shell_has_cut():
    with pytest.raises(UsageError, match=r"'data\.dev_where=\{split:' cannot be read; .*quote the whole word"):
        compose("train", ["data=tsv", "data.dev_where={split:", "dev}"])
    with pytest.raises(UsageError, match=r"'mine\.tsv' is no override; write KEY=VALUE"):
        compose("train", ["mine.tsv"])


@pytest.mark.parametrize(("primary", "word", "where"), [
    ("train", "out=here", "--out OUT"), ("train", "hydra.run.dir=here", "--out OUT"),
    ("eval", "hydra.run.dir=here", "out=OUT"),
])  # fmt: skip
def test_other_spellings_of_the_folder_point_at_ours(primary, word, where):
    with pytest.raises(UsageError, match=where):
        compose(primary, [word])


def test_several_values_without_brackets():
    with pytest.raises(UsageError, match=r"lr=1e-2,1e-3 is several values; a list has brackets: lr=\[1e-2,1e-3\]"):
        compose("eval", ["lr=1e-2,1e-3"])
    with pytest.raises(UsageError, match=r"seed=0,1 is several values; .*seed=\[0,1\]; -m makes a run of each"):
        compose("train", ["seed=0,1"])


def test_unknown_choices_list_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown strategy 'stabel'; did you mean stable\? known: .*regular, stable"):
        compose("train", ["strategy=stabel"])


def test_a_group_without_a_choice_is_wrong_use():
    with pytest.raises(UsageError, match=r"a group is given no choice \(GROUP=null\); leave the word out"):
        compose("train", ["experiment=null"])


def test_a_missing_value_is_named():
    with pytest.raises(UsageError, match=r"data\.root has no value"):
        compose("train", ["data=librispeech"])


def test_differences_pass_over_what_does_not_matter():
    old = compose("train", ["trainer.lr=1e-4"])
    new = compose("train", ["trainer.lr=2e-4", "trainer.log_every=1", "trainer.device=cpu"])
    assert differences(old, new) == ["trainer.lr: 0.0001 -> 0.0002"]


def test_a_path_in_place_of_an_upstreams_name(tmp_path, monkeypatch):
    folder = tmp_path / "it's a (model), mine"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for word in (str(folder), folder.name, f"./{folder.name}"):
        found = compose("train", [f"upstream={word}", "upstream.normalize=true"])["upstream"]
        assert found["source"] == str(folder) and found["normalize"] is True
    (tmp_path / "native one.pt").touch()
    found = compose("train", ["upstream=native one.pt"])
    assert found["upstream"]["source"] == str(tmp_path / "native one.pt")
    assert found["name"].startswith("native-one.pt-") and found["upstream"]["padding"] == "own"


def test_hub_names_in_place_of_an_upstreams_name():
    """A published model's own convention comes with it; any other brings its own."""
    assert compose("train", ["upstream=facebook/hubert-base-ls960"]) == compose("train", ["upstream=hubert_base"])
    found = compose("train", ["upstream=someone/my-hubert"])["upstream"]
    assert (found["name"], found["source"], found["normalize"]) == ("my-hubert", "someone/my-hubert", None)


def test_names_come_before_folders_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "hubert_base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert compose("train", ["upstream=hubert_base"])["upstream"]["source"] == "facebook/hubert-base-ls960"
    with pytest.raises(UsageError, match=r"unknown upstream 'hubert_bass'; did you mean hubert_base\? known: "):
        compose("train", ["upstream=hubert_bass"])
    with pytest.raises(
        UsageError, match=r"unknown experiment 'paper/asrr'; did you mean paper/asr\? .*, paper/\.\.\.$"
    ):
        compose("train", ["experiment=paper/asrr"])
    with pytest.raises(UsageError, match=r"^task\.tasks has no value; give it: 'task\.tasks=\{pr: ") as error:
        compose("train", ["task=joint", "experiment=smoke"])
    example = str(error.value.mend).partition("'")[2].rstrip("'")
    assert compose("train", ["task=joint", "data=synthetic", example])["task"]["tasks"] == {
        "pr": {},
        "sid": {"share": 2},
    }


def test_a_kept_cnn_is_a_difference_and_its_budget_none():
    """Kept or not, batches round differently: a run goes on as it began."""
    old = compose("train", ["experiment=smoke"])
    free = ["trainer.keep=5", "trainer.keep_cnn_gb=1", "trainer.eval_seconds=60", "trainer.keep_best=false"]
    assert not differences(old, compose("train", ["experiment=smoke", *free]))
    assert differences(old, compose("train", ["experiment=smoke", "trainer.keep_cnn=memory"])) == [
        "trainer.keep_cnn: None -> memory"
    ]
