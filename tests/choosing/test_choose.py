"""The choice of α: the run's own dev metric, scores that are kept, the rule's α merged and nothing else left."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import load_file
from small import save_upstream, tone
from told import SCORES_OF_FOUR, Told, candidates_of

from speechft.analysis.similarity import layer_similarity
from speechft.checkpoints.hashing import weights_sha256
from speechft.choosing.candidates import Candidates
from speechft.choosing.choose import SCORES, checked, choose
from speechft.choosing.configuration import changed
from speechft.choosing.drift import Drift
from speechft.choosing.head import TrainedHead
from speechft.choosing.picture import table
from speechft.cli.main import main
from speechft.config.compose import read_config
from speechft.data.loader import Batches, read_cut, take
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge_run
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream

CPU = torch.device("cpu")


def head_of(run):
    config = read_config(run.config)
    return TrainedHead(run, config, load_upstream(config["upstream"]), CPU)


# ---------------------------------------------------------------- the run's head


def test_at_one_the_dev_metric_is_the_one_that_training_ended_with(trained):
    last = [line for line in read_metrics(trained.metrics) if "dev_per" in line][-1]
    head = head_of(trained)
    assert head.score(load_upstream(trained.finetuned)) == {"per": last["dev_per"]}


def test_refitting_trains_the_head_alone_and_is_repeatable(trained):
    head, upstream = head_of(trained), load_upstream(read_config(trained.config)["upstream"]["source"])
    before = weights_sha256(dict(upstream.named_parameters()))
    batches = take(Batches(head._train, None, 4, 2, seed=5), 4)

    def loss():
        head.task.eval()
        with torch.no_grad():
            return np.mean([float(head.task.step(upstream, batch)[0]) for batch in batches])

    strange = head.score(upstream)
    unfitted = loss()
    state = torch.get_rng_state()
    fitted = head.score(upstream, refit=10)
    assert torch.equal(state, torch.get_rng_state())
    assert loss() < unfitted  # of the head on θ0, where it was a stranger
    assert weights_sha256(dict(upstream.named_parameters())) == before
    assert head.score(upstream, refit=10) == fitted and head.score(upstream) == strange


def test_labels_that_are_no_longer_the_runs(run, librispeech, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text((librispeech / "lexicon.txt").read_text() + "NEW\tZH\n")
    config = changed(read_config(run.config), [f"task.lexicon={lexicon}"])
    with pytest.raises(SpeechFTError, match="not those that its head was trained on"):
        TrainedHead(run, config, load_upstream(config["upstream"]), CPU)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(SpeechFTError, match="no checkpoint left"):
        head_of(run)
    config["data"]["dev"] = None
    with pytest.raises(UsageError, match=r"no dev set.*--score-with data\.dev"):
        TrainedHead(run, config, load_upstream(config["upstream"]), CPU)


def test_only_data_and_device_of_a_run_may_change(trained):
    config = read_config(trained.config)
    other = changed(config, ["data.workers=3", "data.dev=[{kind: tsv, path: x}]", "trainer.threads=2"])
    assert other["data"]["workers"] == 3 and other["data"]["dev"] == [{"kind": "tsv", "path": "x"}]
    assert changed(config, []) == config
    with pytest.raises(UsageError, match=r"task\.hidden is fixed by the run"):
        changed(config, ["task.hidden=3"])


# ---------------------------------------------------------------- drift


def test_drift_is_the_mean_over_layers_on_the_dev_set(trained, tmp_path):
    config = read_config(trained.config)
    drift = Drift(trained, config, refit=0)
    assert [one.name for one in drift.objectives] == ["similarity", "dev_per"] and drift.target == 1
    base, tuned = load_upstream(config["upstream"]), load_upstream(trained.finetuned)
    same, _ = drift.score(0.0, base)
    assert same["similarity"] == pytest.approx(1.0, abs=1e-9)
    moved, details = drift.score(1.0, tuned)
    waves = [read_cut(cut) for cut in head_of(trained).dev]
    layers = layer_similarity(base, tuned, waves)
    assert moved["similarity"] == pytest.approx(np.mean([layer["cka"] for layer in layers]), abs=1e-6)
    assert moved["similarity"] < 1 and moved["dev_per"] == details["dev"]["per"]
    cosine, _ = Drift(trained, config, "cosine", refit=0).score(1.0, tuned)
    assert cosine["similarity"] == pytest.approx(np.mean([layer["cosine"] for layer in layers]), abs=1e-6)
    short = Drift(trained, config, minutes=2 / 60, refit=0)
    assert 2 <= sum(cut.duration for cut in short._heard) < 2 + 1.1  # the last one is heard to its end
    assert len({str(sorted(one.identity.items())) for one in (drift, short, Drift(trained, config))}) == 3
    assert Drift(trained, config).identity == Drift(trained, config, refit=20).identity  # no more than the run's
    for wrong in ({"measure": "l2"}, {"minutes": 0.0}, {"refit": -1}):
        with pytest.raises(UsageError):
            Drift(trained, config, **wrong)


def test_a_sweep_keeps_the_chosen_model_and_why(run):
    config = read_config(run.config)
    drift = Drift(run, config, refit=0)
    choice = choose(candidates_of(run), drift, run.merged, [0.2, 0.6, 1.0])
    assert json.loads((run.merged / "choice.json").read_text()) == json.loads(json.dumps(choice))
    assert [row["alpha"] for row in choice["candidates"]] == [0.0, 0.2, 0.6, 1.0]
    last = [line for line in read_metrics(run.metrics) if "dev_per" in line][-1]
    assert choice["candidates"][-1]["scores"]["dev_per"] == last["dev_per"]
    assert run.merged_models() == ([run.merged / f"alpha-{choice['chosen']:g}"])
    (reference,) = merge_run(run, [choice["chosen"]], out=run.folder / "reference")
    ours = load_file(Path(choice["folder"]) / "model.safetensors")
    theirs = load_file(reference.folder / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    row = next(row for row in choice["candidates"] if row["alpha"] == choice["chosen"])
    assert row["on_front"] and row["sha256"] == load_upstream(choice["folder"]).identity.sha256
    assert (run.merged / "choice.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.suffix for path in (run.merged / SCORES).iterdir()} == {".json"}  # no model, no features are left
    lines = table(choice)
    assert len([line for line in lines if "chosen" in line]) == 1 and f"alpha {choice['chosen']:g} by knee" in " ".join(
        lines
    )


@pytest.mark.usefixtures("undrawn")
def test_another_kind_of_task(train_words, tmp_path):
    """Through the interface of tasks alone: a metric that is better when higher."""
    words = [word for word in train_words if not word.startswith("task.")]
    books = "task.codebooks=[{features: mfcc, clusters: 4}]"
    run = finetune([*words, "task=masked_prediction", books, "trainer.steps=6"], tmp_path / "run", latest=False)
    drift = Drift(run, read_config(run.config), refit=2)
    choice = choose(candidates_of(run), drift, run.merged, [0.5])
    assert choice["target"] == "dev_masked_accuracy"
    assert choice["objectives"][1]["higher_better"] and choice["objectives"][1]["title"] == "dev masked accuracy"


# ---------------------------------------------------------------- the sweep


@pytest.mark.usefixtures("undrawn")
def test_rules_choose_among_the_scores(run):
    of = {"candidates": candidates_of(run), "out": run.merged, "alphas": list(SCORES_OF_FOUR)}
    told = Told(SCORES_OF_FOUR, target=1)
    assert choose(scorer=told, **of)["chosen"] == 0.25
    assert told.asked == [0.0, 0.25, 0.5, 1.0]
    budget = choose(scorer=told, rule="budget", lose=0.005, **of)
    assert budget["chosen"] == 0.0 and budget["rule"]["lose"] == 0.005 and "pre-trained" in budget["why"]
    assert choose(scorer=told, rule="budget", lose=0.2, **of)["chosen"] == 0.5
    assert told.asked == [0.0, 0.25, 0.5, 1.0]  # another rule is no reason to score again
    assert [row["on_front"] for row in budget["candidates"]] == [True, True, True, False]
    assert budget["candidates"][1]["relative_loss"] == {"kept": pytest.approx(0.01), "error": pytest.approx(-0.4)}
    assert {path.name for path in run.merged_models()} == {"alpha-0", "alpha-0.25", "alpha-0.5"}
    base = load_file(Path(read_config(run.config)["upstream"]["source"]) / "model.safetensors")
    zero = load_file(run.merged / "alpha-0" / "model.safetensors")
    assert all(np.array_equal(zero[name], base[name]) for name in zero)


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_sweep_goes_on(run):
    of = {"candidates": candidates_of(run), "out": run.merged, "alphas": list(SCORES_OF_FOUR)}
    told = Told(SCORES_OF_FOUR)
    whole = told.score

    def stops(alpha, upstream):
        if alpha == 0.5:
            raise KeyboardInterrupt
        return whole(alpha, upstream)

    told.score = stops
    with pytest.raises(KeyboardInterrupt):
        choose(scorer=told, **of)
    assert not (run.merged / "choice.json").exists() and not run.merged_models()
    assert len(list((run.merged / SCORES).iterdir())) == 2
    next((run.merged / SCORES).iterdir()).write_text("{")  # damaged: that one again
    told.score, told.asked = whole, []
    assert choose(scorer=told, **of)["chosen"] == 0.25
    assert len(told.asked) == 3 and {0.5, 1.0} < set(told.asked)
    other = Told(SCORES_OF_FOUR, identity="other")
    choose(scorer=other, **of)
    assert other.asked == [0.0, 0.25, 0.5, 1.0]  # other settings are other scores


@pytest.mark.usefixtures("undrawn")
def test_other_parents_are_scored_again(run):
    told = Told(SCORES_OF_FOUR)
    choose(candidates_of(run), told, run.merged, [0.5])
    weights = run.finetuned / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("projection.bias"))
    tensors[name] = tensors[name] + 1
    from safetensors.numpy import save_file

    save_file(tensors, weights, metadata={"format": "pt"})
    again = Told(SCORES_OF_FOUR)
    choose(candidates_of(run), again, run.merged, [0.5])
    assert again.asked == [0.0, 0.5]


@pytest.mark.usefixtures("undrawn")
def test_scores_that_are_none_and_sweeps_that_are_none(run):
    with pytest.raises(SpeechFTError, match=r"error of alpha 0\.5 is nan"):
        choose(candidates_of(run), Told({0.0: (1, 1), 0.5: (1, math.nan)}), run.merged, [0.5])
    for alphas in ([1.5], [math.nan], [0.0], []):
        with pytest.raises(UsageError):
            choose(candidates_of(run), Told(SCORES_OF_FOUR), run.merged, alphas)
    assert checked([1.5, 0.3, 0.3], extrapolate=True) == [0.0, 0.3, 1.5]
    with pytest.raises(UsageError, match="unknown rule 'best'; known: knee, budget"):
        choose(candidates_of(run), Told(SCORES_OF_FOUR), run.merged, [0.5], rule="best")
    with pytest.raises(UsageError, match="lose"):
        choose(candidates_of(run), Told(SCORES_OF_FOUR), run.merged, [0.5], rule="budget", lose=-0.1)
    shutil.rmtree(run.finetuned)
    with pytest.raises(SpeechFTError, match="not finished"):
        candidates_of(run)


@pytest.mark.usefixtures("undrawn")
def test_parents_without_a_run(trained, tmp_path):
    base = read_config(trained.config)["upstream"]["source"]
    parents = Candidates("mine", {"name": "tiny", "source": base}, [trained.finetuned])
    told = Told(SCORES_OF_FOUR)
    choice = choose(parents, told, tmp_path / "merged", [0.25], "budget", 0.02)
    assert choice["chosen"] == 0.25 and (tmp_path / "merged/alpha-0.25/merge.json").is_file()
    assert choice["candidates"][1]["details"]["hash"] == load_upstream(choice["folder"]).identity.sha256


# ---------------------------------------------------------------- the command


def test_the_command(run, capsys):
    words = ["merge", run.folder, "--alpha", "auto", "--alphas", "0.25", "1", "--refit", "2"]
    assert main([*map(str, words), "--json"]) == 0
    done = capsys.readouterr()
    choice = json.loads(done.out)
    assert Path(choice["folder"]) == run.merged / f"alpha-{choice['chosen']:g}" and "alpha 1: similarity" in done.err
    assert (run.merged / "choice.png").is_file() and choice["settings"]["refit"] == 2
    assert main([*map(str, words), "--rule", "budget", "--lose", "50%"]) == 0
    again = capsys.readouterr()
    assert again.err.count("scored before") == 3
    assert "| α | similarity (linear CKA) ↑ | dev PER ↓ | front |" in again.out
    assert again.out.splitlines()[-1].startswith(str(run.merged / "alpha-"))


@pytest.mark.parametrize(("words", "said"), [
    (["--alpha", "auto", "0.5"], "auto or numbers, not both"),
    (["--rule", "budget"], "--rule is for --alpha auto"),
    (["--alpha", "auto", "--lose", "2%"], "--lose is for --rule budget"),
    (["--alpha", "auto", "--rule", "budget", "--lose", "much"], "no percentage"),
    (["--alpha", "auto", "--tasks", "pr"], "--tasks is not for --score drift"),
    (["--alpha", "auto", "--score", "superb", "--refit", "3"], "--refit is not for --score superb"),
    (["--alpha", "auto", "--on", "test"], "--on is not for --score drift"),
    (["--alpha", "auto", "--score-with", "seed=3"], "seed is fixed by the run"),
    (["--alpha", "auto", "--alphas", "2"], "outside [0, 1]"),
    (["--alpha", "high"], "invalid float value"),
], ids=str)  # fmt: skip
def test_wrong_use_is_one_line(trained, capsys, words, said):
    assert main(["merge", str(trained.folder), *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and len(told.err.splitlines()) == 1
    assert not trained.merged.exists()


def test_drift_needs_a_run(trained, tmp_path, capsys):
    base = save_upstream(tmp_path / "base")
    words = ["--pretrained", str(base), "--finetuned", str(trained.finetuned), "--alpha", "auto"]
    assert main(["merge", *words]) == 2
    assert "--score drift needs a run" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_every_option_of_a_merge_counts(run):
    """Another method is another sweep, and its models have its name."""
    told = Told(SCORES_OF_FOUR)
    of = {"scorer": told, "out": run.merged, "alphas": [0.25]}
    options = {"method": "slerp", "keep": ["cnn"], "extrapolate": False}
    choice = choose(candidates_of(run, **options), rule="budget", lose=0.02, **of)
    assert Path(choice["folder"]).name.startswith("slerp-alpha-0.25") and choice["merge"]["method"] == "slerp"
    choose(candidates_of(run), **of)
    choose(candidates_of(run, **options, to="hf", check=False), **of)  # neither changes a weight
    assert told.asked == [0.0, 0.25, 0.0, 0.25]


@pytest.mark.usefixtures("undrawn")
def test_statistics_are_collected_once_for_all_alphas(run, tmp_path, monkeypatch):
    """Each α's own folder is removed once it is scored: collected there, they would be collected again."""
    from speechft.merge import collect

    heard = []
    read = collect.load_audio
    monkeypatch.setattr(collect, "load_audio", lambda *words: heard.append(words) or read(*words))
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.2, 200.0 * (number + 1)), 16_000)
    of = {"scorer": Told(SCORES_OF_FOUR), "out": run.merged, "alphas": [0.25, 0.5]}
    choice = choose(candidates_of(run, method="fisher", corpus=str(tmp_path)), **of)
    assert len(heard) == 4  # two files, two models
    files = json.loads((Path(choice["folder"]) / "merge.json").read_text())["choices"]["statistics"]
    assert len(files) == 2 and all(Path(file).parent == run.merged / "statistics" for file in files)
    with pytest.raises(UsageError, match="linear needs no statistics"):
        choose(candidates_of(run, corpus=str(tmp_path)), **of)


def test_a_sweep_of_another_method_is_kept_beside_it(run, tmp_path):
    of = {"scorer": Told(SCORES_OF_FOUR), "out": run.merged, "alphas": [0.25, 0.5]}
    choose(candidates_of(run), **of)
    plain = (run.merged / "choice.json").read_text()
    choose(candidates_of(run, method="slerp"), **of)
    (other,) = run.merged.glob("choice-slerp-*.json")
    assert (run.merged / "choice.json").read_text() == plain and other.with_suffix(".png").is_file()
    from speechft.report.choices import read_choices

    notes = []
    assert [one["run"] for one in read_choices([run.folder], notes)] == [f"{run.folder.name}, slerp", run.folder.name]
    assert not notes


def test_alpha_0_is_said_to_keep_nothing(run):
    scores = {0.0: (1.0, 1.0), 0.5: (0.5, 2.0)}
    choice = choose(candidates_of(run), scorer=Told(scores), out=run.merged, alphas=[0.5])
    assert choice["chosen"] == 0 and choice["why"].endswith(": nothing of the fine-tuning is kept")
