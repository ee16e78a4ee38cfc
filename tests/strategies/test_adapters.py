"""LoRA and DoRA against peft's own merging, the formulas of the papers, and features of every family."""

import numpy as np
import peft
import pytest
import torch
from small import save_upstream
from torch import nn

from speechft.errors import UsageError
from speechft.strategies.build import build_strategy
from speechft.upstreams.load import load_upstream

EVERYTHING = ["query", "key", "value", "output", "feed_forward", "projection"]
FAMILIES = ("hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew")
WAVES = [torch.randn(9000, generator=torch.Generator().manual_seed(number)) for number in range(2)]
WAVES[1] = WAVES[1][:6000]


@pytest.fixture(scope="module", params=[*FAMILIES, "whisper", "decoar2"])
def folder(request, tmp_path_factory):
    if request.param == "whisper":
        return request.getfixturevalue("whisper_folder"), EVERYTHING[:-1]
    if request.param == "decoar2":
        return request.getfixturevalue("decoar2_file"), EVERYTHING
    return save_upstream(tmp_path_factory.mktemp("families") / request.param, request.param), EVERYTHING


def _strategy(kind, targets, **options):
    return build_strategy({"name": kind, "adapter": {"kind": kind, "targets": targets, **options}})


def _with_adapters(source, kind, targets, **options):
    """An upstream with adapters, ready to be trained, and its strategy."""
    upstream, strategy = load_upstream(source), _strategy(kind, targets, **options)
    strategy.check(upstream, 10)
    assert strategy.begin(upstream, 10, seed=0) == []
    strategy.enter(upstream, nn.Linear(1, 1), 0, 10)
    return upstream, strategy


def _move(upstream):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in upstream.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))


def _states(upstream):
    with torch.no_grad():
        return upstream(WAVES).states


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_every_family(folder, kind):
    """Nothing changes at first; every adapter is heard; merging keeps the features and brings the names back."""
    source, targets = folder
    plain = load_upstream(source)
    upstream, strategy = _with_adapters(source, kind, targets)
    before = _states(plain)
    for ours, theirs in zip(_states(upstream), before, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    trained = {name for name, parameter in upstream.named_parameters() if parameter.requires_grad}
    assert trained and all(".lora_" in name for name in trained)

    upstream(WAVES).last.square().sum().backward()
    for name, parameter in upstream.named_parameters():
        if ".lora_B." in name or "magnitude" in name:
            assert parameter.grad is not None and parameter.grad.any(), f"{name} is not heard"

    _move(upstream)
    moved = _states(upstream)
    assert (moved[-1] - before[-1]).abs().max() > 0.01
    strategy.end(upstream)
    for ours, theirs in zip(_states(upstream), moved, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)
    assert list(upstream.state_dict()) == list(plain.state_dict())
    changed = {
        name for name, tensor in plain.state_dict().items() if not torch.equal(upstream.state_dict()[name], tensor)
    }
    assert len(changed) == len([name for name in trained if ".lora_B." in name])
    assert all(name.endswith(".weight") and plain.state_dict()[name].ndim == 2 for name in changed)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_merged_weights_are_pefts_and_the_formulas(upstream_folder, kind):
    """The same adapter weights in a model that peft itself wraps and merges; and the papers' equations in float64."""
    from transformers import HubertModel

    upstream, strategy = _with_adapters(upstream_folder, kind, ["query", "output", "feed_forward"], rank=3, alpha=12)
    _move(upstream)
    adapters = {name: p.detach().clone() for name, p in upstream.named_parameters() if ".lora_" in name}

    model = HubertModel.from_pretrained(upstream_folder)
    start = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    config = peft.LoraConfig(
        r=3, lora_alpha=12, use_dora=kind == "dora",
        target_modules=["q_proj", "out_proj", "intermediate_dense", "output_dense"],
    )  # fmt: skip
    wrapped = peft.get_peft_model(model, config)
    own = {name.replace("base_model.model.", "model."): p for name, p in wrapped.named_parameters() if ".lora_" in name}
    assert own.keys() == adapters.keys() and len(own) == 2 * 4 * (3 if kind == "dora" else 2)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(adapters[name])
    theirs = wrapped.merge_and_unload().state_dict()

    strategy.end(upstream)
    ours = upstream.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for layer in (0, 1):
        for place in ("attention.q_proj", "attention.out_proj", "feed_forward.output_dense"):
            name = f"encoder.layers.{layer}.{place}"
            down, up = (adapters[f"model.{name}.lora_{which}.default.weight"].double().numpy() for which in "AB")
            weight = start[f"{name}.weight"] + (12 / 3) * up @ down
            if kind == "dora":
                length = adapters[f"model.{name}.lora_magnitude_vector.default.weight"].double().numpy()
                weight = length[:, None] * weight / np.linalg.norm(weight, axis=1, keepdims=True)
            np.testing.assert_allclose(ours[f"{name}.weight"].numpy(), weight, rtol=1e-4, atol=1e-6)


def test_adapters_go_where_weights_would_train(upstream_folder):
    strategy = build_strategy(
        {"name": "own", "frozen_parts": ["cnn", "layers.0"], "adapter": {"kind": "lora", "rank": 2}}
    )
    upstream = load_upstream(upstream_folder)
    strategy.begin(upstream, 10, seed=0)
    places = {name.split(".lora_")[0] for name, _ in upstream.named_parameters() if ".lora_" in name}
    assert places == {f"model.encoder.layers.1.attention.{which}_proj" for which in "qv"}


def test_first_weights_follow_from_the_seed_and_leave_the_random_state_alone(upstream_folder):
    def first(seed):
        upstream = load_upstream(upstream_folder)
        _strategy("lora", ["query"]).begin(upstream, 10, seed)
        return torch.cat([p.flatten() for name, p in upstream.named_parameters() if ".lora_A" in name])

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = first(0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, first(0)) and not torch.equal(one, first(1))


def test_an_adapter_that_is_not_finite_is_not_merged(upstream_folder):
    from speechft.errors import SpeechFTError

    upstream, strategy = _with_adapters(upstream_folder, "lora", ["query"])
    with torch.no_grad():
        next(p for name, p in upstream.named_parameters() if ".lora_B" in name).fill_(float("nan"))
    with pytest.raises(SpeechFTError, match=r"adapter of model\.encoder\.layers\.0\.attention\.q_proj is not finite"):
        strategy.end(upstream)


def test_a_target_that_is_not_there_is_named(whisper_folder):
    with pytest.raises(UsageError, match=r"has no projection that trains; take it out of strategy\.adapter\.targets"):
        _strategy("lora", ["projection"]).check(load_upstream(whisper_folder), 10)


def test_without_peft_nothing_is_begun(upstream_folder, monkeypatch):
    import sys

    from speechft.errors import SpeechFTError

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SpeechFTError, match="need peft, which is not installed; pip install peft"):
        _strategy("lora", ["query"]).check(load_upstream(upstream_folder), 10)
