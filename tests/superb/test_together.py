"""Several upstreams in one command: audio read once, a shared CNN run once, and the bits that each gives alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from listener import Listener
from tiny_corpora import save_upstream

from speechft.errors import SpeechFTError
from speechft.superb import extract, sources, store
from speechft.superb.evaluate import evaluate
from speechft.superb.sources import in_company
from speechft.upstreams.load import conventions, load_upstream
from speechft.upstreams.speech_encoder import SpeechEncoder
from speechft.upstreams.together import Together

SAME = ("metrics", "dev", "layer_weights", "loss", "data")


@pytest.fixture
def family(upstream_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """What fine-tuning leaves: the same CNN below other transformers. And a stranger, of the same shape."""
    from safetensors.torch import load_file, save_file

    folders = {"first": upstream_folder}
    for name, seed in (("second", 1), ("third", 2)):
        folders[name] = save_upstream(tmp_path / name, seed=seed)
        cnn = {
            key: value for key, value in load_file(upstream_folder / "model.safetensors").items() if "extractor" in key
        }
        assert cnn
        save_file({**load_file(folders[name] / "model.safetensors"), **cnn}, folders[name] / "model.safetensors")
    folders["stranger"] = save_upstream(tmp_path / "stranger", seed=3)
    return folders


@pytest.fixture
def counted(monkeypatch) -> dict[str, int]:
    """How many waveforms were read, and how many batches the CNNs and the transformers heard."""
    counts = {"read": 0, "cnn": 0, "encode": 0}

    def count(owner, attribute, name):
        before = getattr(owner, attribute)

        def counting(*args, **kwargs):
            counts[name] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, counting)

    count(extract, "_read", "read")
    count(SpeechEncoder, "cnn", "cnn")
    count(SpeechEncoder, "encode", "encode")
    return counts


def stored(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


def each_alone(family, configuration, tmp_path, **keys):
    results = []
    for name, folder in family.items():
        cfg = configuration(store=str(tmp_path / "alone"), out=str(tmp_path / "alone-out"), **keys)
        results += evaluate({name: folder}, cfg=cfg, progress=Listener())
    return results


def test_the_bits_of_each_alone_from_one_pass(family, configuration, tmp_path, counted):
    """Hidden states of the stored sets, and every score; for frames and for means over time."""
    alone = each_alone(family, configuration, tmp_path)
    apart = dict(counted)
    counted.update(dict.fromkeys(counted, 0))
    listener = Listener()
    together = evaluate(family, cfg=configuration(), progress=listener)
    assert listener.text.count("features of 4 upstreams are computed in one pass") == 3
    assert [(one["upstream"]["source"], one["task"]) for one in together] == [
        (one["upstream"]["source"], one["task"]) for one in alone
    ]
    for one, other in zip(together, alone, strict=True):
        assert {key: one[key] for key in SAME} == {key: other[key] for key in SAME}
    assert stored(tmp_path / "store") == stored(tmp_path / "alone") != {}
    # s3prl's Featurizer hears one waveform of each upstream and task besides
    assert apart["read"] == 4 * counted["read"] and counted["encode"] == apart["encode"]
    assert (apart["cnn"] - 12) * 2 == (counted["cnn"] - 12) * 4, "one CNN for three, and the stranger's"


def test_on_several_devices(family, configuration, tmp_path):
    each_alone(family, configuration, tmp_path, tasks=["pr"])
    evaluate(family, ["pr"], cfg=configuration(devices="cpu,cpu,cpu"), progress=Listener())
    assert stored(tmp_path / "store") == stored(tmp_path / "alone") != {}


def test_what_is_there_is_not_made_again(family, configuration, tmp_path, counted, monkeypatch):
    """Of one upstream all is finished, of another half of the shards are there."""
    monkeypatch.setattr(store, "POOLED_ITEMS_PER_SHARD", 2)
    alone = each_alone(family, configuration, tmp_path, tasks=["sid"])
    evaluate({"second": family["second"]}, ["sid"], cfg=configuration(), progress=Listener())
    before = set((tmp_path / "store").rglob("*.json"))
    evaluate({"x": family["third"]}, ["sid"], cfg=configuration(out=str(tmp_path / "x")), progress=Listener())
    shards = sorted(path for path in {*(tmp_path / "store").rglob("0*.json")} - before)
    lost = shards[::2]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.bin")}
    remade = {path.with_suffix(".bin") for path in lost}
    counted.update(dict.fromkeys(counted, 0))
    listener = Listener()
    again = evaluate(family, ["sid"], cfg=configuration(), progress=listener)
    assert "features of 3 upstreams are computed in one pass" in listener.text  # not of the second
    assert {path for path in kept if path.stat().st_mtime_ns != kept[path]} == remade
    assert counted["read"] * 4 == 24 * 4 and counted["encode"] - 3 == 2 * len(shards) + len(lost)
    for one, other in zip(again, alone, strict=True):
        assert {key: one[key] for key in SAME} == {key: other[key] for key in SAME}
    assert stored(tmp_path / "store") == stored(tmp_path / "alone")


def test_one_that_cannot_be_scored_does_not_stop_the_others(family, configuration, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(family["second"] / "model.safetensors")
    name = next(key for key in weights if "layers.1" in key and key.endswith("weight") and weights[key].dim() == 2)
    weights[name].fill_(torch.nan)
    save_file(weights, family["second"] / "model.safetensors")
    with pytest.raises(SpeechFTError, match="not finite"):
        evaluate(family, ["sid", "pr"], cfg=configuration(), progress=Listener())
    for one in ("first", "third", "stranger"):
        for task in ("sid", "pr"):
            assert json.loads((tmp_path / "out" / one / f"{task}.json").read_text())["metrics"]
    assert not list((tmp_path / "out" / "second").glob("*.json"))


def test_no_room_for_all(family, configuration, tmp_path, monkeypatch):
    """What the disk cannot hold beside the first one's is left to its own evaluation."""
    from speechft.superb import assemble

    listener = Listener()
    evaluate({"first": family["first"]}, ["pr"], cfg=configuration(out=str(tmp_path / "o")), progress=listener)
    size = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.bin"))
    told = Listener()
    monkeypatch.setattr(assemble, "room", lambda root, budget: (budget * 1e9, 2.5 * size))
    cfg = configuration(store=str(tmp_path / "second"), out=str(tmp_path / "p"))
    assert len(evaluate(family, ["pr"], cfg=cfg, progress=told)) == 4
    assert "features of 2 upstreams are computed in one pass" in told.text


def test_who_is_held_in_memory_for_whom(monkeypatch):
    nano, other = load_upstream("hubert_nano"), load_upstream("hubert_nano_random")
    fbank = load_upstream("fbank")
    loaded = []

    def models():
        for name, upstream in (("a", nano), ("b", other), ("c", fbank), ("d", nano)):
            loaded.append(name)
            yield name, upstream

    def company(**keys):
        loaded.clear()
        return [(name, [own for own, _ in later], list(loaded)) for name, _, later in in_company(models(), **keys)]

    assert company() == [
        ("a", ["b"], ["a", "b", "c"]), ("b", [], ["a", "b", "c"]), ("c", [], ["a", "b", "c", "d"]), ("d", [], [*"abcd"])
    ]  # fmt: skip
    assert company(wanted=False) == [(name, [], list("abcd"[: n + 1])) for n, name in enumerate("abcd")]
    assert [later for _, later, _ in company(most=1)] == [[]] * 4
    assert sources.company_bytes("cpu") == 4 << 30
    for memory, most in ((80 << 30, 4 << 30), (8 << 30, 1 << 30)):
        properties = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, p=properties: p)
        assert sources.company_bytes("cuda:0") == most

    def broken():
        yield "a", nano
        yield "b", other
        raise SpeechFTError("a folder that is no checkpoint")

    seen = []
    with pytest.raises(SpeechFTError, match="no checkpoint"):
        for name, _, _ in in_company(broken()):
            seen.append(name)
    assert seen == ["a", "b"], "what could be loaded is scored before the error is told"


def test_normalisation_and_padding_are_not_shared_across(upstream_folder):
    """Equal CNNs hear another waveform where one scales it."""
    waves = [
        torch.randn(length, generator=torch.Generator().manual_seed(n)) * 0.1 + 0.05
        for n, length in enumerate((9_000, 7_000, 12_345))
    ]
    models = [
        load_upstream({**conventions(upstream_folder), "normalize": normalize, "padding": padding})
        for normalize, padding in ((False, "own"), (True, "own"), (False, "huggingface"), (False, "own"))
    ]
    together = Together(models)
    for number, (hidden, alone) in enumerate(zip(together(waves), (one(waves) for one in models), strict=True)):
        assert hidden.frames.tolist() == alone.frames.tolist()
        for one, other in zip(hidden.states, alone.states, strict=True):
            assert torch.equal(one, other), number
    chosen = list(together(waves, [3, 1]))
    assert torch.equal(chosen[1].last, models[1](waves).last) and torch.equal(chosen[0].last, models[0](waves).last)
