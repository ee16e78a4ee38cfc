"""An upstream of the user's own: the one of docs/own_upstream.md trains and merges; mistakes are explained."""

import json
import shutil

import pytest
import torch
from documented import block, commands
from safetensors.torch import load_file, save_file

from speechft.checkpoints.convert import convert
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge, merge_run
from speechft.own import module_of
from speechft.train.finetune import finetune
from speechft.upstreams.chunked import Chunked
from speechft.upstreams.describe import describe, lines
from speechft.upstreams.load import load_upstream, locate
from speechft.upstreams.own import Own

OPTIONS = {"dim": 32, "depth": 2}


@pytest.fixture(scope="module")
def apc(tmp_path_factory):
    """The page's file, and weights for it that torch wrote."""
    folder = tmp_path_factory.mktemp("apc")
    file = folder / "apc.py"
    file.write_text(block("own_upstream.md"))
    torch.manual_seed(3)
    torch.save(module_of(file).Apc(**OPTIONS).state_dict(), folder / "apc.pt")
    return file


def settings(file, **others):
    return {"name": "apc", "kind": f"{file}:Apc", "source": str(file.with_suffix(".pt")), **OPTIONS, **others}


@pytest.fixture
def waves():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) for length in (8_000, 4_000, 100, 0)]


def test_the_documented_class_is_short_and_computes_what_it_would_alone(apc, waves):
    assert len(block("own_upstream.md").splitlines()) < 40
    upstream = load_upstream(settings(apc))
    model = module_of(apc).Apc(**OPTIONS)
    model.load_state_dict(torch.load(apc.with_suffix(".pt")))
    hidden = upstream(waves)
    assert hidden.frames.tolist() == [48, 23, 1, 1] and len(hidden.states) == 3 == upstream.num_layers
    with torch.inference_mode():
        for row, wave in enumerate(waves[:2]):
            expected = model.eval()([wave])
            for ours, theirs in zip(hidden.states, expected.states, strict=True):
                assert torch.allclose(ours[row, : theirs.shape[1]], theirs[0], atol=1e-5)
    assert list(upstream.parts()) == ["projection", "layers.0", "layers.1"]
    assert len(list(upstream.layers)) == 2 and upstream.trainable
    assert torch.equal(upstream(waves, last_only=True).last, hidden.last)


def test_normalisation_is_part_of_it(apc, waves):
    raw, scaled = load_upstream(settings(apc)), load_upstream(settings(apc, normalize=True))
    ready = [(wave - wave.mean()) / (wave.var(unbiased=False) + 1e-5).sqrt() for wave in waves[:2]]
    assert torch.allclose(scaled(waves[:2]).last, raw(ready).last, atol=1e-4)
    assert raw.identity.key != scaled.identity.key


def test_the_identity_follows_weights_text_and_options(apc, tmp_path):
    usual = load_upstream(settings(apc)).identity
    assert usual.family.startswith("own-Apc-") and usual == load_upstream(settings(apc)).identity
    other = tmp_path / "apc.py"
    other.write_text(apc.read_text() + "\n# computes the same\n")
    changed = load_upstream({**settings(apc), "kind": f"{other}:Apc"}).identity
    assert changed.sha256 == usual.sha256 and changed.key != usual.key
    drawn = load_upstream({**settings(apc), "source": None, "random_seed": 1}).identity
    assert drawn.sha256 != usual.sha256 and drawn.family == usual.family


def test_its_folder_is_an_upstream_like_any_other(apc, waves, tmp_path):
    folder = locate(load_upstream(settings(apc)).identity.source)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json", "upstream.py",
    }  # fmt: skip
    assert (folder / "upstream.py").read_text() == apc.read_text()
    copy = convert(folder, tmp_path / "copy", "hf")
    assert torch.equal(load_upstream(copy)(waves).last, load_upstream(settings(apc))(waves).last)
    with pytest.raises(SpeechFTError, match="has no s3prl format"):
        convert(folder, tmp_path / "apc.pt", "s3prl")
    pieces = load_upstream(copy, chunk_seconds=1.0, chunk_overlap=0.5)
    assert isinstance(pieces, Chunked) and isinstance(pieces.inner, Own)
    found = describe(str(copy))
    assert list(found["changes"]) == ["normalize switched"] and "own-Apc" in lines(found)[0]


def test_merging_is_arithmetic_and_keeps_the_code(apc, tmp_path):
    base = locate(load_upstream(settings(apc)).identity.source)
    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    origin = load_file(base / "model.safetensors")
    moved = {name: value + (0.1 if value.is_floating_point() else 0) for name, value in origin.items()}
    save_file(moved, tuned / "model.safetensors")
    (one,) = merge(base, [tuned], [0.5], out=tmp_path / "out", alpha_at={"layers.1": 0.0})
    found = load_file(one.folder / "model.safetensors")
    for name, value in found.items():
        step = 0.0 if name.startswith("layers.1") else 0.05
        assert torch.allclose(value, origin[name] + step, atol=1e-6), name
    assert (one.folder / "upstream.py").read_text() == apc.read_text()
    other = tmp_path / "apc.py"
    other.write_text(apc.read_text().replace("states[-1] + layer", "layer"))
    foreign = load_upstream({**settings(apc), "kind": f"{other}:Apc"}).identity.source
    with pytest.raises(SpeechFTError, match=r"computes otherwise .*: own differ"):
        merge(base, [foreign], out=tmp_path / "out")


def test_the_documented_command_trains_it_and_everything_after_works(apc, librispeech, cli, tmp_path):
    (words,) = [one for one in commands("own_upstream.md") if one[0] == "train"]
    assert {"upstream=own", "upstream.kind=apc.py:Apc", "upstream.source=apc.pt"} <= set(words)
    upstream = [word.replace("=apc.", f"={apc.parent}/apc.").replace("512", "32") for word in words[1:]]
    run = finetune(
        [*upstream, "+upstream.depth=2", f"task.lexicon={librispeech}/lexicon.txt", "data=librispeech",
         f"data.root={librispeech}", "data.workers=0", "data.batch_size=4", "trainer.steps=10", "trainer.lr=1e-3",
         "trainer.device=cpu", "trainer.threads=1", "trainer.checkpoint_every=5"],
        tmp_path / "run",
    )  # fmt: skip
    record = json.loads(run.pretrained.read_text())
    before, after = load_upstream(settings(apc)), load_upstream(run.finetuned)
    assert record["sha256"] == before.identity.sha256 != after.identity.sha256
    assert record["family"] == before.identity.family == after.identity.family
    said = (run.finetuned / "README.md").read_text()
    assert "library_name: speechft" in said and "AutoModel" not in said
    (merged,) = merge_run(run, [0.25])
    assert load_upstream(merged.folder).identity.family == before.identity.family
    (swa,) = merge_run(run, [0.5], checkpoints=sorted(run.checkpoints.glob("step-*")), out=tmp_path / "swa")
    assert load_upstream(swa.folder).num_layers == 3
    analysed = cli("analyze", run.folder, "--audio", librispeech / "dev-clean", "--json")
    assert analysed.returncode == 0, analysed.stderr
    cka = [layer["cka"] for layer in json.loads(analysed.stdout)["models"][0]["layers"]]
    assert len(cka) == 3 and all(0.5 < value <= 1 for value in cka)
    after_run = finetune(
        [f"after={run.folder}", *upstream, "+upstream.depth=2", f"task.lexicon={librispeech}/lexicon.txt",
         "data=librispeech", f"data.root={librispeech}", "data.workers=0", "data.batch_size=4", "trainer.steps=2",
         "trainer.lr=1e-3", "trainer.device=cpu", "trainer.threads=1"], tmp_path / "next",
    )  # fmt: skip
    started = json.loads(after_run.pretrained.read_text())["started_from"]
    assert started["sha256"] == after.identity.sha256


def test_a_folder_from_elsewhere_runs_nothing_until_it_is_named(apc, tmp_path, monkeypatch, cli):
    folder = tmp_path / "theirs"
    shutil.copytree(load_upstream(settings(apc)).identity.source, folder)
    monkeypatch.setenv("SPEECHFT_CACHE", str(tmp_path / "another_machine"))
    with pytest.raises(
        SpeechFTError, match=r"brings code of its own, upstream.py.*name it once: speechft doctor"
    ) as error:
        load_upstream(folder)
    assert not list(tmp_path.glob("another_machine/own/code/*"))
    command = error.value.mend.partition("name it once: speechft ")[2].split()
    named = cli(*command)
    assert named.returncode == 0 and "own-Apc" in named.stdout, named.stderr
    assert load_upstream(folder).dim == 32
    (folder / "upstream.py").write_text(apc.read_text().replace("1e-6", "1e-5"))
    with pytest.raises(SpeechFTError, match="is not the code that its weights were trained with"):
        load_upstream(folder)


def test_convert_makes_a_folder_of_a_class_and_weights(apc, cli, tmp_path):
    (words,) = commands("own_upstream.md", "speechft convert")
    words = [word.replace("apc.", f"{apc.parent}/apc.").replace("apc/", f"{tmp_path}/apc").replace("512", "32")
             for word in words] + ["depth=2"]  # fmt: skip
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert load_upstream(tmp_path / "apc").identity.key == load_upstream(settings(apc)).identity.key


def test_weights_of_another_kind_are_read_by_the_class(apc, tmp_path):
    theirs = {f"encoder.{name}": value for name, value in torch.load(apc.with_suffix(".pt")).items()}
    torch.save({"epoch": 3, "model": theirs}, tmp_path / "theirs.pt")
    with pytest.raises(SpeechFTError, match=r"save its state_dict\(\) alone, or give Apc a static method read_weights"):
        load_upstream(settings(apc, source=str(tmp_path / "theirs.pt")))
    reading = """
    @staticmethod
    def read_weights(path):
        state = torch.load(path, weights_only=True)["model"]
        return {name.removeprefix("encoder."): value for name, value in state.items()}
"""
    file = tmp_path / "apc.py"
    file.write_text(apc.read_text() + reading)
    loaded = load_upstream({**settings(apc), "kind": f"{file}:Apc", "source": str(tmp_path / "theirs.pt")})
    assert loaded.identity.sha256 == load_upstream(settings(apc)).identity.sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Apc", "class Acp", r"has no upstream 'Apc' .*; its upstreams: Acp"),
        ("def frame_counts", "def frames", "Apc lacks frame_counts; see speechft.upstreams.base.Upstream"),
        ("import torch\n", "import torhc\n", r"does not load \(ModuleNotFoundError"),
        ("hop = 160 ", "hop = None ", "Apc.hop is None, not a positive whole number"),
        ("depth + 1", "depth", "gives 3 states, and 1 with last_only; its num_layers is 2"),
        ("(samples - 400) // 160 + 1", "samples // 160", r"gives \[100, 56, .*"),
        ("(samples - 400) // 160 + 1", "samples / 160", r"frame_counts gives \[2\] torch.float32 for two waveforms"),
        ("states[-1] + layer(states[-1])[0]", "layer(states[0], states)[0]", r"fails on a second of noise \("),
        ("states[-1:] if last_only else states", "[one[..., :3] for one in states][-1:] * (1 if last_only else 3)",
         r"its dim is 32; give \[batch"),
        ("states[-1:] if", "states[:1] if", "its last state is another one with last_only"),
        ("self.projection", "self.projector", "has a weight called 'projector"),
        ("super().__init__()", "super().__init__(); dim = dim + 1", "do not fit the class Apc: .*of another shape"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(apc, tmp_path, old, new, message):
    text = apc.read_text()
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new))
    with pytest.raises((UsageError, SpeechFTError), match=message):
        load_upstream({**settings(apc), "kind": f"{tmp_path}/mine.py:Apc"})


def test_wrong_settings_are_explained(apc, tmp_path):
    for others, message in (
        ({"wide": 3}, r"unexpected keyword argument 'wide'; its options are given as \+upstream.NAME=VALUE"),
        ({"kind": "nowhere.py:Apc"}, "no such file"),
        ({"kind": "Apc"}, r"upstream.kind is 'Apc'; give path/to/file.py:ClassName"),
        ({"source": str(tmp_path / "none.pt")}, "upstream.source: there is no"),
    ):
        with pytest.raises(UsageError, match=message):
            load_upstream(settings(apc, **others))
    with pytest.raises(UsageError, match=r"upstream.kind is '\?\?\?'"):
        load_upstream("own")


def test_a_model_that_hears_its_batch_is_told(tmp_path, apc, capsys):
    text = apc.read_text().replace("log(self.mel(waves) + 1e-6)", "log(self.mel(waves) / waves.abs().mean() + 1e-6)")
    (tmp_path / "mine.py").write_text(text)
    load_upstream({**settings(apc), "kind": f"{tmp_path}/mine.py:Apc"})
    assert "beside a longer waveform the features of a waveform change by" in capsys.readouterr().err
