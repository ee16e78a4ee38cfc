"""What an upstream is given, looked at before it runs."""

import json

import numpy as np
import pytest
import torch
from small import save_upstream

from speechft.errors import UsageError
from speechft.upstreams.load import load_upstream
from speechft.upstreams.together import Together


@pytest.mark.parametrize(
    ("waves", "message"),
    [
        ([], "an upstream was given no waveforms; give a list of at least one"),
        ([torch.zeros(8), torch.zeros(2, 8)], r"waveform 1 of 2 is of shape \(2, 8\); .*one channel"),
        (torch.zeros(16_000), r"waveform 0 of 16000 is of shape \(\)"),
        ([torch.zeros(8, dtype=torch.int16)], r"waveform 0 of 1 is of torch\.int16; give floats in \[-1, 1\]"),
        ([np.zeros(8, np.int16)], r"waveform 0 of 1 is of torch\.int16; give floats"),
        (["a.wav"], "waveform 0 of 1 is no tensor but str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["fbank", "tiny"])
def test_what_is_no_waveform_is_one_line(name, waves, message, upstream_folder):
    upstream = load_upstream(upstream_folder if name == "tiny" else name)
    with pytest.raises(UsageError, match=message):
        upstream(waves)


def test_waveforms_of_numpy_are_heard_as_tensors_are(upstream_folder):
    upstream = load_upstream(upstream_folder)
    waves = [np.random.default_rng(0).standard_normal(length).astype(np.float32) for length in (9000, 7000)]
    with torch.no_grad():
        ours, theirs = upstream(waves), upstream([torch.from_numpy(wave) for wave in waves])
        together = [hidden.last for hidden in Together([upstream, upstream])(waves)]
        double = upstream([wave.astype(np.float64) for wave in waves])
    assert torch.equal(ours.last, theirs.last) and ours.frames.tolist() == theirs.frames.tolist()
    assert all(torch.equal(one, ours.last) for one in together) and torch.equal(double.last, ours.last)


def test_an_empty_waveform_gives_a_frame_and_a_batch_may_be_a_tensor():
    upstream = load_upstream("fbank")
    assert upstream([torch.zeros(0), torch.zeros(8_000)]).frames.tolist() == [1, 48]
    assert upstream(torch.zeros(2, 8_000)).last.shape == (2, 48, 240)


@pytest.mark.parametrize(
    ("family", "change"),
    [("hubert", {"num_attention_heads": 4}), ("wavlm", {"hidden_act": "relu"}), ("sew", {"num_attention_heads": 4})],
)
def test_what_computes_otherwise_is_another_upstream(family, change, tmp_path):
    """The same weights give other features, so nothing stored is shared; a default that is left out changes nothing."""
    folders = {
        name: save_upstream(tmp_path / name, family, initializer_range=0.3)
        for name in ("as saved", "changed", "left out")
    }
    for name, more in (("changed", change), ("left out", {"layer_norm_eps": None})):
        file = folders[name] / "config.json"
        config = {**json.loads(file.read_text()), **more}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    ours, other, same = (load_upstream(folder) for folder in folders.values())
    assert ours.identity.sha256 == other.identity.sha256 == same.identity.sha256
    assert not torch.allclose(ours([wave]).last, other([wave]).last, atol=1e-3)
    assert torch.equal(ours([wave]).last, same([wave]).last)
    assert ours.identity.key == same.identity.key != other.identity.key
