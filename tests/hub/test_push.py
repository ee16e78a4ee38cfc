"""Handing over: what is sent is what a dry run writes, the Hub's own parser reads the scores, refusals are one line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
import transformers
from fake_hub import FakeHub
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file, save_file
from small import save_upstream, tone

from speechft.checkpoints.folder import write_folder
from speechft.cli.main import main
from speechft.errors import SpeechFTError, UsageError
from speechft.hub.push import model_folder, parcel
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A run's folder as stages 1 to 3 leave it: a merged model and scores, of it and of the pre-trained one."""
    root = tmp_path_factory.mktemp("work")
    base = save_upstream(root / "base")
    run = root / "run"
    upstream = load_upstream(base)
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    write_folder(run / "finetuned", upstream.checkpoint(), {"README.md": f"---\ntags: [x]\n---\n# T\nFrom `{base}`\n"})
    (run / "config.yaml").write_text("seed: 0\n")
    record = load_upstream(base).identity.as_dict()
    (run / "pretrained.json").write_text(json.dumps(record))
    (model,) = merge(base, [run / "finetuned"], out=run / "merged")
    for name, sha256, errors, accuracy in (
        ("run-alpha-0.25", load_upstream(model.folder).identity.sha256, 2, 0.75),
        ("base", record["sha256"], 3, 0.5),
        ("stranger", "0" * 64, 9, 0.25),
    ):
        result(run / "superb" / name / "pr.json", sha256, "per", errors / 8, [{"errors": errors, "length": 8}])
        lines = [{"correct": place < 4 * accuracy} for place in range(4)]
        result(run / "superb" / name / "sid.json", sha256, "acc", accuracy, lines, corpus="synthetic smoke")
    return run, model.folder


def result(path, sha256, metric, value, lines, **more):
    record = {
        "task": path.stem, "metric": metric, "metrics": {metric: value}, "higher_better": metric == "acc", "seed": 3,
        "upstream": {"sha256": sha256}, "lr": 1e-3, "steps": 100, "engine": "fast", "data": "d",
        "test_utterances": len(lines), "settings": {"steps": 100, "lr": [1e-3]}, **more,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    path.with_suffix(".utterances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_hubs_own_parser_reads_the_scores(workplace):
    _, folder = workplace
    contents = parcel(folder, "me/speech", license="apache-2.0")
    card = ModelCard(contents.files["README.md"])
    data = card.data
    assert (data.library_name, data.license, data.model_name) == ("transformers", "apache-2.0", "speech")
    assert {"speech", "speechft", "merge"} <= set(data.tags) and data.pipeline_tag == "feature-extraction"
    by_task = {one.dataset_config: one for one in data.eval_results}
    assert by_task.keys() == {"pr", "sid"}  # each once, of these weights
    assert (by_task["pr"].metric_type, by_task["pr"].metric_value) == ("per", 25.0)
    assert (by_task["sid"].metric_type, by_task["sid"].metric_value) == ("accuracy", 75.0)
    assert by_task["pr"].dataset_name == "SUPERB PR" and by_task["pr"].task_type == "automatic-speech-recognition"
    # scores on the synthetic corpus are not called SUPERB's, and a shortened recipe is not called official
    assert (by_task["sid"].dataset_type, by_task["sid"].dataset_name) == (
        "speechft-synthetic",
        "synthetic smoke corpus",
    )
    assert by_task["pr"].metric_args["official_recipe"] is False and by_task["pr"].metric_args["steps"] == 100
    name, again = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "speech" and len(again) == 2
    assert "| PR, PER % ↓ | 25.00 | 37.50 | 0.001 | 100 | steps 100 instead of 100000 |  |" in card.text
    assert "| SID, accuracy % ↑ | 75.00 | 50.00 |" in card.text


def test_no_path_of_this_machine_is_told(workplace):
    run, folder = workplace
    for model in (folder, run / "finetuned"):
        contents = parcel(model, "me/speech")
        told = "".join(value for value in contents.files.values() if isinstance(value, str))
        assert str(run.parent) not in told
    record = json.loads(parcel(folder, "me/speech").files["merge.json"])
    assert record["parents"][1]["path"] == "run/finetuned" and len(record["parents"][1]["sha256"]) == 64
    assert "`run/finetuned`" in parcel(folder, "me/speech").files["README.md"]


def test_no_place_of_statistics_is_told(workplace, tmp_path):
    """In cards of today and of before, which had whole paths."""
    run, _ = workplace
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.2, 200.0 * (number + 1)), 16_000)
    base = run.parent / "base"
    (model,) = merge(base, [run / "finetuned"], [0.5], "fisher", tmp_path / "out", corpus=str(tmp_path), check=False)
    record = json.loads((model.folder / "merge.json").read_text())
    paths = [Path(one) for one in record["choices"]["statistics"]]
    readme = (model.folder / "README.md").read_text()
    for text in (readme, f"{readme}\nParameters: `statistics` {paths[0]} {paths[1]}, and ({paths[0]}).\n"):
        (model.folder / "README.md").write_text(text)
        files = parcel(model.folder, "me/speech").files
        told = files["README.md"] + files["merge.json"]
        assert str(tmp_path) not in told and str(run.parent) not in told
        choices = json.loads(files["merge.json"])["choices"]
        assert choices["statistics"] == [path.name for path in paths]
        assert choices["statistics_sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        assert all(one in told for one in [*choices["statistics"], *choices["statistics_sha256"]])
        assert choices["statistics_sha256"][0] in files["README.md"]


def test_whose_loader_a_card_names(workplace, tmp_path, decoar2_file):
    _, folder = workplace

    def named(folder):
        return ModelCard(parcel(folder, "me/speech").files["README.md"]).data.library_name

    assert named(folder) == "transformers"
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "README.md").write_text("---\nlibrary_name: mine\n---\n# X\n")
    assert named(other) == "mine"
    for text in ("---\ntags: [x]\n---\n# X\n", "# X\n"):
        (other / "README.md").write_text(text)
        assert named(other) == "transformers"
    (other / "README.md").unlink()
    assert named(other) == "transformers"
    upstream = load_upstream(decoar2_file)
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter += 0.05
    tuned = write_folder(tmp_path / "tuned", upstream.checkpoint())
    assert named(tuned) == "speechft"  # it has no card
    (model,) = merge(decoar2_file, [tuned], out=tmp_path / "merged", check=False)
    assert named(model.folder) == "speechft"


def test_weights_that_are_not_finite_are_not_handed_over(workplace, tmp_path):
    _, folder = workplace
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer_norm.bias"][3] = float("inf")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpeechFTError, match=r"^encoder\.layer_norm\.bias of \S+broken is not finite"):
        parcel(broken, "me/speech")


@pytest.mark.parametrize("text", ["[]", '"x"', '{"parents": 3}', '{"parents": ["x"]}'])
def test_a_record_that_is_none(workplace, tmp_path, push, text):
    _, folder = workplace
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "merge.json").write_text(text)
    one_line(push(None, other, "me/speech", "--dry-run", tmp_path / "parcel"), 1, "merge.json is no record of a merge")


def test_the_parent_on_the_hub_is_named(workplace, tmp_path):
    run, folder = workplace
    other = tmp_path / "model"
    shutil.copytree(folder, other)
    record = json.loads((other / "merge.json").read_text())
    record["parents"][0]["path"] = "facebook/hubert-base-ls960"
    (other / "merge.json").write_text(json.dumps(record))
    data = ModelCard(parcel(other, "speech").files["README.md"]).data
    assert (data.base_model, data.base_model_relation) == ("facebook/hubert-base-ls960", "merge")
    assert ModelCard(parcel(folder, "speech").files["README.md"]).data.base_model is None
    elsewhere = parcel(other, "speech", [run / "superb"])  # out of its run, it finds the scores where it is told to
    assert data.eval_results is None and len(elsewhere.scores) == 2


def test_which_folder(workplace, tmp_path):
    run, folder = workplace
    assert model_folder(run) == folder and model_folder(folder) == folder
    with pytest.raises(UsageError, match="is no model"):
        model_folder(tmp_path)


def test_why_this_alpha(workplace, tmp_path):
    _, folder = workplace
    choice = {
        "chosen": 0.25, "why": "the knee", "rule": {"name": "knee"}, "objectives": [{"title": "a"}, {"title": "b"}],
        "candidates": [{"alpha": 0.0}, {"alpha": 0.25, "sha256": load_upstream(folder).identity.sha256}],
    }  # fmt: skip
    shutil.copytree(folder, tmp_path / "alpha-0.25")
    (tmp_path / "choice.json").write_text(json.dumps(choice))
    assert "chosen among 0, 0.25, scored by a and b" in parcel(tmp_path / "alpha-0.25", "x").files["README.md"]
    choice["candidates"][1]["sha256"] = "other"
    (tmp_path / "choice.json").write_text(json.dumps(choice))
    assert "chosen among" not in parcel(tmp_path / "alpha-0.25", "x").files["README.md"]


# ---------------------------------------------------------------- the command


@pytest.fixture
def push(monkeypatch, capsys):
    """`speechft push WORDS` with a Hub and a token: exit code, stdout, stderr."""

    def run(hub, *words, token="hf_writer"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address if hub else "http://127.0.0.1:9")
        monkeypatch.setenv("HF_TOKEN", token)
        capsys.readouterr()
        code = main(["push", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def one_line(done, code, *parts):
    assert done[:2] == (code, ""), done
    lines = done[2].splitlines()
    assert lines[-1].startswith("speechft: error: ") and "; " in lines[-1] and "Traceback" not in done[2]
    for part in parts:
        assert part in lines[-1]


def test_what_is_sent_is_what_a_dry_run_writes(workplace, tmp_path, push):
    run, folder = workplace
    dry = push(None, folder, "me/speech", "--dry-run", tmp_path / "parcel", "--json", token="")
    assert dry[0] == 0, dry
    told = json.loads(dry[1])
    assert told["sent"] is False and told["scores"] == {"pr.per": 25.0, "sid.acc": 75.0}
    assert (tmp_path / "parcel" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    ours = transformers.AutoModel.from_pretrained(tmp_path / "parcel").eval()  # and it loads as it is
    wave = torch.randn(1, 6000)
    with torch.inference_mode():
        assert torch.allclose(ours(wave).last_hidden_state, load_upstream(folder)([wave[0]]).last, atol=1e-5)
    one_line(push(None, folder, "me/speech", "--dry-run", tmp_path / "parcel"), 2, "exists already")
    with FakeHub() as hub:
        sent = push(hub, run, "me/speech")
        assert sent[0] == 0, sent
        assert sent[1].strip() == f"{hub.address}/me/speech" and "made me/speech (private)" in sent[2]
        repo = hub.repos["me/speech"]
        assert repo["private"] and repo["commits"] == ["Upload with speechft"]
        written = {path.name: path.read_bytes() for path in (tmp_path / "parcel").iterdir()}
        assert {name: data for name, data in repo["files"].items() if name != ".gitattributes"} == written
        one_line(push(hub, folder, "speech"), 2, "me/speech exists on the Hub and has files", "--update")
        assert push(hub, folder, "me/speech", "--update", "--message", "again")[0] == 0
        assert repo["commits"] == ["Upload with speechft", "again"]
        hub.repos["me/empty"] = {"private": False, "files": {".gitattributes": b""}, "commits": []}
        assert push(hub, folder, "me/empty", "--public")[0] == 0  # as an interrupted push leaves it
        one_line(push(hub, folder, "me/other", token="hf_stranger"), 1, "does not know the token")
        one_line(push(hub, folder, "me/other", token="hf_reader"), 1, "may not write to me/other")
        assert "me/other" not in hub.repos


def test_refusals_without_the_hub(workplace, tmp_path, push, monkeypatch):
    _, folder = workplace
    one_line(push(None, folder, "me/speech"), 1, "cannot be reached", "--dry-run")
    for name in ("a/b/c", "me/-speech", "me/sp eech"):
        one_line(push(None, folder, name), 2, f"{name} is no name of a repository")
        one_line(push(None, folder, name, "--dry-run", tmp_path / "parcel"), 2, f"{name} is no name of a repository")
    assert not (tmp_path / "parcel").exists()
    one_line(push(None, tmp_path, "me/speech"), 2, "is no model")
    one_line(push(None, folder, "me/speech", "--superb", tmp_path / "none"), 2, "is no folder of results")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    one_line(push(None, folder, "me/speech"), 1, "HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    one_line(push(None, folder, "me/speech"), 2, "no token", "HF_TOKEN")
