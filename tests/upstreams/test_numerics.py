"""Reduced precision and compilation: features stay close, in float32, whatever the family."""

import pytest
import torch
from small import save_upstream

from speechft.errors import UsageError
from speechft.upstreams.load import load_upstream
from speechft.upstreams.numerics import Numerics

CPU = torch.device("cpu")
FAMILIES = ["hubert", "wavlm", "sew", "decoar2", "whisper", "fbank"]


@pytest.fixture(scope="module", params=FAMILIES)
def upstream(request, tmp_path_factory):
    name = request.param
    if name in ("decoar2", "whisper"):
        return load_upstream(request.getfixturevalue({"decoar2": "decoar2_file", "whisper": "whisper_folder"}[name]))
    return load_upstream(name if name == "fbank" else save_upstream(tmp_path_factory.mktemp("m") / name, name))


def waves():
    generator = torch.Generator().manual_seed(0)
    return [0.3 * torch.randn(length, generator=generator) for length in (16_000, 9000)]


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_features_stay_close(upstream, precision):
    with torch.inference_mode():
        exact = upstream(waves())
        with Numerics(precision).autocast(CPU):
            rough = upstream(waves())
    assert rough.frames.tolist() == exact.frames.tolist()
    for a, b in zip(rough.states, exact.states, strict=True):
        assert a.dtype == torch.float32 and relative(a, b) < (0.03 if precision == "bf16" else 0.004)
    if upstream.layers:
        assert relative(rough.last, exact.last) > 1e-6  # it did something
    else:
        assert torch.equal(rough.last, exact.last)  # log-mels are float32


@pytest.fixture
def eager(monkeypatch):
    """torch.compile's tracing without its slow code generation; how often a layer's forward was wrapped."""
    real, wrapped = torch.compile, []

    def compile_eagerly(function, **options):
        wrapped.append(options)
        return real(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    yield wrapped
    torch._dynamo.reset()


def test_compiled_layers_compute_the_same_and_are_given_back(upstream, eager):
    with torch.inference_mode():
        usual = upstream(waves())
        with Numerics(compile=True).compiled(upstream):
            again = [upstream(waves()), upstream(waves()[:1])]
        after = upstream(waves())
    assert len(eager) == len(upstream.layers)
    assert not any("forward" in vars(layer) for layer in upstream.layers)
    for a, b, c in zip(usual.states, again[0].states, after.states, strict=True):
        assert torch.allclose(a, b, atol=1e-4) and torch.equal(a, c)
    assert len(again[1].states) == len(usual.states)


def test_chunks_have_the_layers_of_what_is_inside(upstream_folder):
    chunked = load_upstream(upstream_folder, chunk_seconds=10)
    assert len(chunked.layers) == 2 == len(load_upstream(upstream_folder).layers)


def test_every_way_has_its_key():
    ways = [Numerics.read(precision, compiled) for precision in (False, "bf16", "fp16") for compiled in (False, True)]
    assert len({way.key for way in ways}) == 6 and ways[0] == Numerics() and ways[0].key == ""
    with pytest.raises(UsageError, match=r"unknown precision 'int8'; known: no, bf16, fp16"):
        Numerics.read("int8", False)
    with pytest.raises(UsageError, match="compile is 'perhaps'"):
        Numerics.read("no", "perhaps")
