"""`speechft analyze` on runs made by hand: which models, which figures, which files, what is not computed again."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import save_upstream, tone

from speechft.analysis import analyze as module
from speechft.analysis.analyze import analyze, summary
from speechft.analysis.learned import learned_weights
from speechft.analysis.models import choose
from speechft.checkpoints.stream import FolderReader
from speechft.cli.main import main
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream


def make_run(folder, base, moved: float, strategy: str = "stable", alphas=(0.5,)):
    """A finished run whose fine-tuning was noise of a relative size, merged."""
    identity = load_upstream(base).identity
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed: 0\nstrategy:\n  name: {strategy}\n")
    record = {**identity.as_dict(), "source": str(base), "random_seed": None}
    (folder / "pretrained.json").write_text(json.dumps(record))
    shutil.copytree(base, folder / "finetuned")
    generator = torch.Generator().manual_seed(3)
    state = load_file(base / "model.safetensors")
    for name, value in state.items():
        if name.startswith("encoder.layers"):
            state[name] = value + moved * value.abs().mean() * torch.randn(value.shape, generator=generator)
    save_file(state, folder / "finetuned" / "model.safetensors", metadata={"format": "pt"})
    merge(base, [folder / "finetuned"], alphas, out=folder / "merged")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import soundfile

    root = tmp_path_factory.mktemp("place")
    base = save_upstream(root / "base")
    make_run(root / "runs" / "mine", base, 0.3)
    make_run(root / "runs" / "other", base, 0.6, "regular", (0.25, 0.5))
    (root / "audio").mkdir()
    for number, seconds in enumerate((0.4, 0.9, 0.6)):
        soundfile.write(root / "audio" / f"{number}.wav", tone(seconds, 150.0 * (number + 1)), 16_000)
    return root


@pytest.fixture
def without_plots(monkeypatch):
    monkeypatch.setattr("speechft.analysis.plots.draw", lambda *_: [])


def write_weights(folder, task: str, sha256: str, weights):
    folder.mkdir(parents=True, exist_ok=True)
    record = {"task": task, "upstream": {"sha256": sha256}, "layer_weights": weights}
    (folder / f"{task}.json").write_text(json.dumps(record))


def test_a_run_stands_for_its_models_against_its_own_upstream(place):
    chosen = choose([place / "runs" / "other"])
    assert chosen.base.source == str(place / "base") and chosen.base.settings["normalize"] is False
    assert [(model.name, model.alpha, model.method) for model in chosen.models] == [
        ("other-alpha-0.25", 0.25, "linear"), ("other-alpha-0.5", 0.5, "linear"), ("other-finetuned", 1.0, None)
    ]  # fmt: skip
    assert {model.series for model in chosen.models} == {"other (regular)"}
    assert chosen.home == place / "runs" / "other" / "analysis"


def test_what_is_compared_with(place, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(place / "runs"))
    base, mine = place / "base", place / "runs" / "mine"
    assert choose([mine / "merged" / "alpha-0.5"]).base.source == str(base)
    named = choose([base, mine])  # the base named beside what was made from it is not compared with itself
    assert named.base.source == str(base) and [one.name for one in named.models] == ["mine-alpha-0.5", "mine-finetuned"]
    assert choose([base, place / "runs" / "mine" / "finetuned"], base=mine / "finetuned").base.name == "mine-finetuned"
    alone = shutil.copytree(mine / "finetuned", tmp_path / "alone")
    first = choose([base, alone])
    assert (first.base.name, [one.name for one in first.models]) == ("base", ["alone"])
    assert first.home == place / "runs" / "analysis"
    moved = shutil.copytree(mine / "merged" / "alpha-0.5", tmp_path / "moved")  # merge.json still names the parents
    assert choose([moved]).base.source == str(base) and choose([moved]).models[0].alpha == 0.5
    with pytest.raises(UsageError, match="alone does not say what it was fine-tuned from; name the pre-trained model"):
        choose([alone])
    with pytest.raises(UsageError, match="is a run, not one model; give a model in it"):
        choose([moved], mine)
    with pytest.raises(UsageError, match="neither a model's folder nor a run"):
        choose([tmp_path])
    with pytest.raises(UsageError, match="hubert_nano_random has no weights of its own"):
        choose(["hubert_nano_random", alone])
    other = save_upstream(tmp_path / "else", seed=9)
    make_run(tmp_path / "third", other, 0.1)
    with pytest.raises(
        UsageError, match=r"from different upstreams \(.* from base, .* from else\); choose one with --b"
    ):
        choose([mine, tmp_path / "third"])
    shutil.rmtree(tmp_path / "third" / "merged")
    shutil.rmtree(tmp_path / "third" / "finetuned")
    with pytest.raises(SpeechFTError, match="third is not finished"):
        choose([tmp_path / "third"])


def test_models_of_one_name_in_two_places(place, tmp_path, monkeypatch, without_plots):
    """The runs of two sweeps may both be called `0`: neither their names nor their layer weights become one."""
    monkeypatch.setenv("SPEECHFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPEECHFT_RUNS", str(tmp_path / "runs"))
    runs = [make_run(tmp_path / sweep / "0", place / "base", moved) for sweep, moved in (("a", 0.3), ("b", 0.6))]
    for number, run in enumerate(runs):
        weights = FolderReader(run / "finetuned").sha256()
        write_weights(run / "superb" / "0-finetuned", "sid", weights, [1.0 - number, 0.0, number])
    found = analyze(runs, audio=None, out=tmp_path / "out")
    models = found["models"]
    assert [model["source"] for model in models] == [
        str(run / part) for run in runs for part in ("merged/alpha-0.5", "finetuned")
    ]  # fmt: skip
    names = [model["name"] for model in models]
    assert names[:2] == ["0-alpha-0.5", "0-finetuned"] and len(set(names)) == 4
    assert names[3].startswith("0-finetuned-")
    first, second = models[1]["series"], models[3]["series"]
    assert [model["series"] for model in models] == [first, first, second, second] and first != second
    weights = {name: own["weights"] for name, own in found["layer_weights"]["sid"].items()}
    assert weights == {names[1]: [1.0, 0.0, 0.0], names[3]: [0.0, 0.0, 1.0]}


def test_figures_and_files(place, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECHFT_RUNS", str(place / "runs"))
    mine = place / "runs" / "mine"
    hashes = {name: load_upstream(place / name).identity.sha256 for name in ("base", "runs/mine/finetuned")}
    write_weights(place / "runs" / "superb" / "base", "sid", hashes["base"], [0.5, 0.3, 0.2])
    write_weights(mine / "superb" / "ft", "sid", hashes["runs/mine/finetuned"], [0.25, 0.5, 0.25])
    result = analyze([mine, place / "runs" / "other"], audio=place / "audio", plots=["png", "svg"], out=tmp_path)
    half, whole = result["models"][:2]
    assert (half["name"], half["alpha"], whole["name"]) == ("mine-alpha-0.5", 0.5, "mine-finetuned")
    assert half["update"]["norm"] == pytest.approx(whole["update"]["norm"] / 2, rel=1e-5)
    assert whole["update"]["parts"]["cnn"]["norm"] == 0
    assert half["layers"][0]["relative_l2"] == 0  # what goes into the first layer did not change
    for key in ("cka", "cosine"):
        assert 1 > half["similarity"][key] > whole["similarity"][key]
    assert whole["similarity"]["cka"] == pytest.approx(sum(one["cka"] for one in whole["layers"]) / 3)
    assert result["layer_weights"]["sid"] == {
        "base": {"weights": [0.5, 0.3, 0.2], "results": 1},
        "mine-finetuned": {"weights": [0.25, 0.5, 0.25], "results": 1},
    }
    assert json.loads((tmp_path / "analysis.json").read_text()) == result
    names = ("similarity", "drift", "updates", "modules", "layer-weights")
    assert [plot["files"] for plot in result["plots"]] == [[f"{name}.png", f"{name}.svg"] for name in names]
    assert all((tmp_path / name).stat().st_size > 5000 for plot in result["plots"] for name in plot["files"])
    assert any("frames are few for 32 dimensions" in note for note in result["notes"])


def test_nothing_is_computed_twice(place, tmp_path, monkeypatch, without_plots):
    mine = place / "runs" / "mine"
    first = analyze([mine], audio=place / "audio", utterances=2, out=tmp_path / "a")

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr("speechft.upstreams.load._build", refuse)
    monkeypatch.setattr("speechft.analysis.updates.update_norms", refuse)
    again = analyze([mine], audio=place / "audio", utterances=2, out=tmp_path / "b")
    assert again["models"] == first["models"]
    with pytest.raises(AssertionError, match="computed again"):  # of other audio
        analyze([mine], audio=place / "audio", utterances=1, out=tmp_path / "c")


def test_an_interrupted_analysis_keeps_what_it_heard(place, tmp_path, monkeypatch, without_plots):
    """Models that do not fit into memory together are heard one after the other; a kill costs the one in hand."""
    from speechft.analysis import similarity

    monkeypatch.setattr(module, "_MEMORY", 1)
    heard, whole = [], similarity.layer_similarities

    def second_time_killed(base, others, *rest):
        heard.append([other.identity.name for other in others])
        if len(heard) == 2:
            raise KeyboardInterrupt
        return whole(base, others, *rest)

    monkeypatch.setattr(similarity, "layer_similarities", second_time_killed)
    words = {"words": [place / "runs" / "other"], "audio": place / "audio" / "1.wav", "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        analyze(**words)
    assert not (tmp_path / "analysis.json").exists()
    result = analyze(**words)
    assert heard == [["other-alpha-0.25"], ["other-alpha-0.5"], ["other-alpha-0.5"], ["other-finetuned"]]
    assert len(result["models"]) == 3


def test_input_normalisation_that_differs_is_said(place, tmp_path, without_plots):
    folder = shutil.copytree(place / "runs" / "mine" / "finetuned", tmp_path / "loud")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "written_by": "speechft"}')
    result = analyze([place / "base", folder], audio=place / "audio", out=tmp_path / "out")
    assert any(note.startswith("loud hears its input normalised, base does not") for note in result["notes"])
    assert result["models"][0]["layers"][0]["relative_l2"] > 1e-4


def test_weights_alone(place, tmp_path):
    result = analyze([place / "runs" / "mine"], audio=None, out=tmp_path)
    assert result["audio"] is None and "layers" not in result["models"][0]
    assert result["models"][0]["sha256"] == json.loads(
        (place / "runs" / "mine" / "merged" / "alpha-0.5" / "merge.json").read_text())["sha256"]  # fmt: skip
    assert [plot["name"] for plot in result["plots"]][:2] == ["updates", "modules"]


def test_a_summary():
    layers = [{"layer": n, "cka": cka, "cosine": 0.5, "relative_l2": None} for n, cka in enumerate((0.9, 0.7, None))]
    assert summary(layers) == {
        "cka": pytest.approx(0.8), "cosine": 0.5, "relative_l2": None, "lowest": {"layer": 1, "cka": 0.7}
    }  # fmt: skip


def test_learned_weights_of_several_seeds_are_averaged(tmp_path):
    write_weights(tmp_path / "m-0", "pr", "a", [0.2, 0.8])
    write_weights(tmp_path / "m-1", "pr", "a", [0.4, 0.6])
    write_weights(tmp_path / "x", "pr", "unknown", [0.0, 1.0])
    (tmp_path / "m-0" / "sid.json").write_text("{")
    found = learned_weights([tmp_path, tmp_path / "nowhere"], {"a": "m"})
    assert found == {"pr": {"m": {"weights": pytest.approx([0.3, 0.7]), "results": 2}}}


def test_the_command(place, cli):
    environment = {"SPEECHFT_RUNS": str(place / "runs")}
    done = cli("analyze", place / "runs" / "mine", "--audio", place / "audio", "--plots", "svg", **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    saved = json.loads((place / "runs" / "mine" / "analysis" / "analysis.json").read_text())
    cka = saved["models"][0]["similarity"]["cka"]
    assert lines[0].split()[:3] == ["model", "α", "‖θ−θ0‖/‖θ0‖"] and f"{cka:.4f}" in lines[1]
    assert "of 3 utterances (2 s) of" in lines[3] and lines[-1].startswith(f"{place}/runs/mine/analysis/analysis.json")
    assert done.stderr.startswith("compared with base: mine-alpha-0.5, mine-finetuned")


def test_what_the_command_says(place, capsys, without_plots):
    weights = ["--weights-only", "--json", "--out", str(place / "out")]
    assert main(["analyze", str(place / "base"), str(place / "runs" / "mine" / "finetuned"), *weights]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["alpha"] == 1.0
    mine = str(place / "runs" / "mine")
    for words, code, part in [
        (["nowhere", "x"], 2, "neither a known name nor a folder"),
        ([mine, "--plots", "bmp"], 2, "plots as bmp; known: png, pdf, svg"),
        ([mine, "--audio", str(place / "base")], 1, "holds no audio"),
        ([mine, "--weights-only", "--audio", "x"], 2, "--weights-only hears nothing"),
    ]:
        assert main(["analyze", *words]) == code
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and part in error


def test_readers_and_upstreams_agree_on_the_hash(place):
    from speechft.checkpoints.hashing import streamed_sha256

    reader = FolderReader(place / "base")
    assert streamed_sha256(reader.names(), reader.read) == load_upstream(place / "base").identity.sha256


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize("seconds", ["-3", "0", "nan", "inf"])
def test_batches_of_no_length(place, tmp_path, capsys, seconds):
    words = ["analyze", str(place / "runs" / "mine"), "--batch-seconds", seconds, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"speechft: error: batches of {seconds} seconds; ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[]", "3", '{"parents": {"path": "x"}}', '{"parents": [[]]}'])
def test_a_record_that_is_none(place, tmp_path, capsys, text):
    model = tmp_path / "model"
    shutil.copytree(place / "runs" / "mine" / "merged" / "alpha-0.5", model)
    (model / "merge.json").write_text(text)
    assert main(["analyze", str(place / "base"), str(model), "--weights-only", "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"speechft: error: {model}/merge.json is no record of a merge; merge again, or remove the file"


def test_merges_that_differ_in_more_than_alpha_are_curves_of_their_own(upstream_folder, tmp_path):
    run = make_run(tmp_path / "mine", upstream_folder, 0.1, alphas=(0.25, 0.5))
    tuned, base, out = [run / "finetuned"], upstream_folder, run / "merged"
    merge(base, tuned, [0.5], out=out, keep=["cnn"], check=False)
    merge(base, tuned, [0.5], out=out, weight_norm="effective", check=False)
    for density in ("0.2", "0.5"):
        (made,) = merge(base, tuned, [0.5], "ties", out, parameters={"density": density}, check=False)
        made.folder.rename(out / f"ties-{density}")
    merge(base, tuned, None, out=out, alpha_by_depth=[0.0, 0.5], check=False)
    models = choose([str(run)]).models
    series = {}
    for model in models:
        series.setdefault(model.series, []).append(model.name)
    plain = [names for names in series.values() if len(names) > 1]
    assert plain == [["mine-alpha-0.25", "mine-alpha-0.5", "mine-finetuned"]] and len(series) == 6
    assert "mine (stable), ties density=0.2 scope=tensor" in series and "mine (stable), keep cnn" in series
