"""Fisher information and Gram matrices against their definitions, and the collection's ways."""

import json

import numpy as np
import papers
import pytest
import soundfile
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file
from small import save_upstream, tone

from speechft.data.readers.base import Utterance
from speechft.errors import SpeechFTError, UsageError
from speechft.merge import collect
from speechft.merge.merge import merge
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Two files of different lengths."""
    folder = tmp_path_factory.mktemp("speech")
    for number, seconds in enumerate((0.21, 0.34)):
        soundfile.write(folder / f"{number}.wav", tone(seconds, 200.0 * (number + 1), seed=number), 16_000)
    return folder


def waves(speech):
    return [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in sorted(speech.glob("*.wav"))]


def about(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


def test_fisher_information_is_the_squared_jacobian(parents, speech, tmp_path, monkeypatch):
    """diag(JᵀJ) by a backward pass from every single output, with transformers' own model."""
    base, (tuned, _) = parents
    heard = [wave[:1400] for wave in waves(speech)]
    files = []
    for number, wave in enumerate(heard):
        soundfile.write(tmp_path / f"{number}.wav", wave.numpy(), 16_000, subtype="FLOAT")
        files.append(Utterance(str(number), tmp_path / f"{number}.wav"))
    monkeypatch.setattr(collect, "speech_of", lambda corpus: files * 80)  # many draws of outputs
    from speechft.merge.parents import open_parents

    path, _ = collect.collect_all(open_parents(base, [tuned]), "fisher", "x", tmp_path)
    found, header = load_file(path), about(path)
    model = transformers.AutoModel.from_pretrained(base).eval()
    exact = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    frames = 0
    for wave in heard:
        last = model(wave[None]).last_hidden_state[0]
        frames += len(last)
        for output in last.reshape(-1):
            for name, gradient in zip(
                exact, torch.autograd.grad(output, list(model.parameters()), retain_graph=True, allow_unused=True),
                strict=True,
            ):  # fmt: skip
                if gradient is not None:
                    exact[name] += gradient.square()
    exact = {name: one.numpy() / frames for name, one in exact.items()}
    assert int(header["frames"]) == 80 * frames
    scale = float(header["scale"])
    mean = sum(one.sum() for one in exact.values()) / sum(one.size for one in exact.values())
    assert scale == pytest.approx(mean, rel=0.1)
    assert found.keys() == exact.keys()
    for name, one in exact.items():
        if one.mean() > 1e-3 * mean:
            assert found[name].mean() * scale == pytest.approx(one.mean(), rel=0.25), name
            if one.size > 500:
                assert np.corrcoef(found[name].ravel(), one.ravel())[0, 1] > 0.9, name
    assert not found["masked_spec_embed"].any()  # no output depends on it
    assert np.mean(np.concatenate([one.ravel() for one in found.values()])) == pytest.approx(1.0, rel=1e-3)


def test_gram_matrices_are_those_of_the_inputs(parents, speech, tmp_path):
    base, (tuned, _) = parents
    (merged,) = merge(base, [tuned], [0.4], "regmean", tmp_path, corpus=str(speech), parameters={"scale": 0.8})
    record = json.loads((merged.folder / "merge.json").read_text())
    paths = record["choices"]["statistics"]
    inputs: dict[str, list[list[np.ndarray]]] = {}
    for number, folder in enumerate((base, tuned)):
        model = transformers.AutoModel.from_pretrained(folder).eval()
        for wave in waves(speech):
            with torch.no_grad():
                output = model(wave[None], output_hidden_states=True)
                layer = model.encoder.layers[1]
                before = output.hidden_states[1]
                attended = layer.layer_norm(before + layer.attention(before)[0])  # what the feed-forward layer hears
            for name, rows in (("attention.q_proj", before), ("feed_forward.intermediate_dense", attended)):
                inputs.setdefault(f"encoder.layers.1.{name}.weight", [[], []])[number].append(rows[0].double().numpy())
    origin, other, result = (load_file(f / "model.safetensors") for f in (base, tuned, merged.folder))
    for name, sides in inputs.items():
        rows = [np.concatenate(side) for side in sides]
        grams = [one.T @ one / len(one) for one in rows]
        for path, gram in zip(paths, grams, strict=True):
            np.testing.assert_allclose(load_file(path)[name], gram, rtol=1e-3, atol=1e-4)
        expected = papers.regmean(origin[name].astype(float), [other[name].astype(float)], 0.4, grams, 0.8)
        np.testing.assert_allclose(result[name], expected, atol=1e-4)
    for name in ("encoder.layer_norm.weight", "feature_extractor.conv_layers.0.conv.weight"):  # no linear layer's
        np.testing.assert_allclose(result[name], 0.6 * origin[name] + 0.4 * other[name], atol=1e-6)
    assert len(load_file(paths[0])) == 13  # six of each layer, and the projection


def test_fisher_merging_is_the_weighted_mean(parents, speech, tmp_path):
    base, tuned = parents
    (merged,) = merge(base, tuned, [0.3], "fisher", tmp_path, corpus=str(speech), seed=3)
    record = json.loads((merged.folder / "merge.json").read_text())
    paths = record["choices"]["statistics"]
    assert [about(path)["weights_sha256"] for path in paths] == [one["sha256"] for one in record["parents"]]
    information = [load_file(path) for path in paths]
    models = [load_file(folder / "model.safetensors") for folder in (base, *tuned)]
    for name, value in load_file(merged.folder / "model.safetensors").items():
        floored = [np.maximum(one[name].astype(float), 1e-6) for one in information]
        arrays = [one[name].astype(float) for one in models]
        np.testing.assert_allclose(value, papers.fisher(arrays[0], arrays[1:], 0.3, floored), atol=1e-5)
    again = merge(base, tuned, [0.3], "fisher", tmp_path / "again", statistics=paths, check=False)[0].folder
    one, other = (load_file(folder / "model.safetensors") for folder in (merged.folder, again))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    with pytest.raises(SpeechFTError, match="was collected with other weights than those merged"):
        merge(base, tuned, [0.3], "fisher", tmp_path / "c", statistics=[paths[1], paths[0], paths[2]], check=False)
    with pytest.raises(UsageError, match="2 files of statistics for 3 models"):
        merge(base, tuned, [0.3], "fisher", tmp_path / "c", statistics=paths[:2])
    with pytest.raises(SpeechFTError, match="holds no regmean statistics"):
        merge(base, tuned, [0.3], "regmean", tmp_path / "c", statistics=paths)


@pytest.mark.parametrize("kind", ["fisher", "regmean"])
def test_an_interrupted_collection_goes_on(kind, parents, speech, tmp_path, monkeypatch, capsys):
    base, (tuned, _) = parents
    whole = merge(base, [tuned], [0.5], kind, tmp_path / "whole", corpus=str(speech), check=False)
    read, heard = collect.load_audio, []

    def once(path, *more):
        heard.append(path.name)
        if len(heard) == 2:
            raise KeyboardInterrupt
        return read(path, *more)

    monkeypatch.setattr(collect, "load_audio", once)
    with pytest.raises(KeyboardInterrupt):
        merge(base, [tuned], [0.5], kind, tmp_path / "part", corpus=str(speech), check=False)
    assert [path.name[-23:] for path in (tmp_path / "part" / "statistics").iterdir()] == [".unfinished.safetensors"]
    capsys.readouterr()
    part = merge(base, [tuned], [0.5], kind, tmp_path / "part", corpus=str(speech), check=False)
    assert "going on after 1 of 2 pieces" in capsys.readouterr().err and heard == [
        "0.wav",
        "1.wav",
        "1.wav",
        "0.wav",
        "1.wav",
    ]
    statistics = [sorted((tmp_path / where / "statistics").iterdir()) for where in ("whole", "part")]
    assert [path.name for path in statistics[0]] == [path.name for path in statistics[1]]
    for one, other in zip(*statistics, strict=True):
        first, second = load_file(one), load_file(other)
        assert all(np.array_equal(first[name], second[name]) for name in first)
    merge(base, [tuned], [0.25], kind, tmp_path / "part", corpus=str(speech), check=False)
    assert len(heard) == 5 and capsys.readouterr().err.count("collected before") == 2  # nothing is heard twice
    assert whole[0].folder.name == part[0].folder.name == f"{kind}-alpha-0.5"


def test_every_family_gives_both(tmp_path, speech, whisper_folder, decoar2_file):
    sources = [save_upstream(tmp_path / "wavlm", "wavlm", "layer"), save_upstream(tmp_path / "sew", "sew"),
               save_upstream(tmp_path / "data2vec", "data2vec-audio"), whisper_folder, decoar2_file]  # fmt: skip
    for source in sources:
        upstream = load_upstream(source)
        weights = set(upstream.checkpoint().state)
        for kind in ("fisher", "regmean"):
            sums: dict[str, torch.Tensor] = {}
            gather = collect.KINDS[kind](upstream)
            frames = gather(upstream, waves(speech)[1], torch.Generator().manual_seed(0), sums)
            assert frames == int(upstream.frame_counts(torch.tensor([len(waves(speech)[1])]))[0])
            assert sums and set(sums) <= weights and all(bool(torch.isfinite(one).all()) for one in sums.values())
            if kind == "fisher":
                assert sum(bool(one.any()) for one in sums.values()) > 0.8 * len(weights)


def test_corpora(speech, tmp_path):
    table = tmp_path / "corpus.tsv"
    table.write_text(f"id\tpath\tstart\tend\na\t{speech}/1.wav\t0.1\t0.3\nb\t{speech}/0.wav\t\t\n")
    pieces = collect.cut_up(collect.speech_of(str(table)), longest=0.15)
    assert [(piece.id, round(piece.start, 2), round(piece.end or 0, 2)) for piece in pieces] == [
        ("a", 0.1, 0.25), ("a", 0.25, 0.3), ("b", 0.0, 0.15), ("b", 0.15, 0.21),
    ]  # fmt: skip
    assert [one.id for one in collect.speech_of(str(speech))] == ["0.wav", "1.wav"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpeechFTError, match="holds no speech"):
        collect.speech_of(str(tmp_path / "empty"))
    with pytest.raises(SpeechFTError, match="is missing; give a folder of audio"):
        collect.speech_of(str(tmp_path / "nowhere"))
