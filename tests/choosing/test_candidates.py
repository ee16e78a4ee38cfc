"""What a sweep merges: what it depends on, what its results are called, and what is found before anything is scored."""

import os
import shutil

import pytest
import soundfile
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from small import save_upstream, tone
from told import SCORES_OF_FOUR, Told, candidates_of

from speechft.choosing.candidates import Candidates
from speechft.choosing.choose import SCORES, choose
from speechft.cli.main import main
from speechft.errors import SpeechFTError, UsageError
from speechft.files import partial_name
from speechft.sharing import shared_folder
from speechft.superb.sources import safe

pytestmark = pytest.mark.usefixtures("undrawn")


def speech(folder, pitch):
    folder.mkdir(exist_ok=True)
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", tone(0.2, pitch * (number + 1)), 16_000)
    return folder


def test_another_content_under_the_same_name_is_scored_again(run, tmp_path):
    """Of the corpus, of the same length, too; and of files of statistics."""
    corpus = speech(tmp_path / "speech", 200.0)
    told = Told(SCORES_OF_FOUR)
    of = {"scorer": told, "out": run.merged, "alphas": [0.25]}
    choose(candidates_of(run, method="fisher", corpus=str(corpus)), **of)
    choose(candidates_of(run, method="fisher", corpus=str(corpus)), **of)
    assert told.asked == [0.0, 0.25]
    sizes = [file.stat().st_size for file in sorted(corpus.iterdir())]
    speech(corpus, 330.0)
    assert sizes == [file.stat().st_size for file in sorted(corpus.iterdir())]
    choice = choose(candidates_of(run, method="fisher", corpus=str(corpus)), **of)
    assert told.asked == [0.0, 0.25] * 2
    files = choice["merge"]["choices"]["statistics"]
    choose(candidates_of(run, method="fisher", corpus=None, statistics=files), **of)
    assert told.asked == [0.0, 0.25] * 2  # they are what was collected
    with safe_open(files[1], "numpy") as opened:
        about = opened.metadata()
    values = load_file(files[1])
    values[next(iter(values))][...] = 3.0
    save_file(values, files[1], about)
    choose(candidates_of(run, method="fisher", corpus=None, statistics=files), **of)
    assert told.asked == [0.0, 0.25] * 3


def test_results_of_different_merges_have_different_names(run, tmp_path):
    corpus = str(speech(tmp_path / "speech", 200.0))
    variants = [
        {}, {"method": "slerp"}, {"method": "ties"}, {"method": "ties", "parameters": {"density": "0.5"}},
        {"keep": ["cnn"]}, {"keep": ["layers.0"]}, {"alpha_at": {"cnn": 0.0}}, {"alpha_at": {"cnn": 0.1}},
        {"weight_norm": "effective"}, {"method": "fisher", "corpus": corpus},
        {"method": "fisher", "corpus": corpus, "seed": 1}, {"checkpoints": [run.checkpoints / "step-1"]},
    ]  # fmt: skip
    names = [candidates_of(run, **options).label(0.5) for options in variants]
    assert len(set(names)) == len(names) and names[0] == "trained-alpha-0.5" and names == [safe(name) for name in names]
    assert names[1].startswith("trained-slerp-alpha-0.5-") and names[4].startswith("trained-linear-alpha-0.5-")
    speech(tmp_path / "speech", 330.0)
    assert candidates_of(run, method="fisher", corpus=corpus).label(0.5) != names[9]
    same = {"method": "linear", "keep": [], "alpha_at": {}, "alpha_by_depth": None, "parameters": {}, "seed": 3,
            "weight_norm": "stored", "corpus": None, "statistics": None, "to": "hf", "check": False}  # fmt: skip
    assert candidates_of(run, **same).label(0.25) == "trained-alpha-0.25"


@pytest.mark.parametrize(("options", "said"), [
    ({"alpha_by_depth": [0.0, 0.5]}, "--alpha-by-depth there is no alpha to choose"),
    ({"method": "model_stock"}, "model_stock takes at least 2"),
    ({"method": "ties", "parameters": {"density": "7"}}, "density is '7'"),
    ({"method": "ties", "parameters": {"dens": "0.5"}}, "no parameter 'dens'"),
    ({"keep": ["layers.77"]}, "no tensor matches 'layers.77'"),
    ({"method": "fisher"}, "either --corpus or --statistics"),
    ({"method": "fisher", "statistics": ["a", "b"]}, "a is missing"),
    ({"weight_norm": "whole"}, "weight norm"),
    ({"checkpoints": []}, "no checkpoints left"),
], ids=str)  # fmt: skip
def test_what_cannot_be_merged_is_found_before_anything_is_scored(run, options, said):
    told = Told(SCORES_OF_FOUR)
    with pytest.raises(SpeechFTError, match=said.replace("(", r"\(")):
        choose(candidates_of(run, **options), told, run.merged, [0.25])
    assert told.asked == [] and not run.merged.exists()


def test_places_that_are_taken_are_found_before_anything_is_scored(run):
    told = Told(SCORES_OF_FOUR)
    (run.merged / "alpha-0.5").mkdir(parents=True)
    (run.merged / "alpha-0.5" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"alpha-0\.5 is no merged model"):
        choose(candidates_of(run), told, run.merged, [0.25, 0.5])
    assert told.asked == []


def test_statistics_of_checkpoints_are_refused_before_anything_is_heard(run, tmp_path, monkeypatch):
    from speechft.merge import collect

    monkeypatch.setattr(collect, "load_audio", lambda *_: pytest.fail("heard"))
    checkpoints = sorted(run.checkpoints.iterdir())[-1:]
    candidates = candidates_of(run, method="fisher", corpus=str(speech(tmp_path / "s", 200.0)), checkpoints=checkpoints)
    told = Told(SCORES_OF_FOUR)
    with pytest.raises(UsageError, match="is a checkpoint of training"):
        choose(candidates, told, run.merged, [0.5])
    assert told.asked == []


def test_two_sweeps_at_once_leave_each_others_models_alone(tmp_path):
    base = save_upstream(tmp_path / "base", seed=3)
    shutil.copytree(base, tmp_path / "tuned")
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, tmp_path / "tuned" / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    parents = Candidates("mine", {"name": "tiny", "source": str(base)}, [tmp_path / "tuned"], {"check": False})
    alphas = [round(0.05 * number, 2) for number in range(1, 6)]
    scores = {alpha: (1.0 - alpha, alpha) for alpha in [0.0, *alphas]}
    pids = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                choose(parents, Told(scores, identity=number), tmp_path / "out", alphas)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    assert {path.suffix for path in (tmp_path / "out" / SCORES).iterdir() if path.name != ".writing"} == {".json"}


def test_the_merge_of_another_sweep_leaves_what_this_one_is_writing(run, tmp_path, monkeypatch):
    def drawn(choice, stem, name, plots):
        unfinished = stem.parent / partial_name(stem)
        unfinished.touch()
        with shared_folder(stem.parent):  # as the other's merge does
            assert unfinished.exists()
        unfinished.unlink()

    monkeypatch.setattr("speechft.choosing.choose.draw", drawn)
    choose(candidates_of(run), Told(SCORES_OF_FOUR), tmp_path / "out", list(SCORES_OF_FOUR))


def test_the_command_finds_it_first(run, capsys, monkeypatch):
    monkeypatch.setattr("speechft.choosing.drift.Drift.score", lambda *_: pytest.fail("scored"))
    assert main(["merge", str(run.folder), "--alpha", "auto", "--method", "model_stock"]) == 2
    assert capsys.readouterr().err.startswith("speechft: error: model_stock takes at least 2 fine-tuned models")


def test_the_command_calls_results_by_what_was_chosen(run, capsys, monkeypatch):
    def caught(tasks, cfg, out, scratch, names, *rest):
        raise SpeechFTError(f"{names(0.0)} {names(0.5)}")

    monkeypatch.setattr("speechft.choosing.superb.Superb", caught)
    said = set()
    for words in ([], ["--method", "ties"], ["--method", "ties", "--set", "density=0.5"], ["--keep", "cnn"]):
        assert main(["merge", str(run.folder), "--alpha", "auto", "--score", "superb", *words]) == 1
        base, name = capsys.readouterr().err.split()[-2:]
        assert base == "tiny" and name.startswith("trained-")
        said.add(name)
    assert len(said) == 4 and "trained-alpha-0.5" in said
