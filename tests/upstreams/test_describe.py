"""What doctor says of an upstream, against features computed here."""

import torch
from small import save_upstream

from speechft.upstreams.describe import describe, lines
from speechft.upstreams.load import load_upstream


def test_changes_are_those_of_the_features(tmp_path):
    folder = save_upstream(tmp_path / "m")
    found = describe(str(folder))
    generator = torch.Generator().manual_seed(0)
    waves = [0.03 * torch.randn(length, generator=generator) + 0.001 for length in (48_000, 38_400)]
    pooled = []
    for normalize in (False, True):
        upstream = load_upstream(folder, normalize=normalize)
        with torch.inference_mode():
            pooled.append(torch.cat([torch.cat([s[0].mean(0) for s in upstream([wave]).states]) for wave in waves]))
    expected = float((pooled[1] - pooled[0]).norm() / pooled[0].norm())
    assert abs(found["changes"]["normalize switched"] - expected) < 1e-4
    assert expected > 1e-3  # the offset; a group norm takes the level away by itself
    assert found["changes"]["2.4 s padded to 3 s as s3prl does"] > 0.01  # group norm: the trap
    assert any("normalize switched" in line for line in lines(found))


def test_models_with_layer_norm_hardly_feel_padding(tmp_path):
    found = describe(str(save_upstream(tmp_path / "m", "wav2vec2", "layer")))
    assert found["changes"]["2.4 s padded to 3 s as s3prl does"] < 1e-4


def test_what_has_no_such_conventions(tmp_path, whisper_folder):
    assert describe(str(whisper_folder))["changes"] == {}
    found = describe("fbank")
    assert found["changes"] == {} and found["dim"] == 240 and len(lines(found)) == 3


def test_sew_has_no_padding_of_s3prls(tmp_path):
    found = describe(str(save_upstream(tmp_path / "m", "sew")))
    assert list(found["changes"]) == ["normalize switched", "2.4 s padded to 3 s as transformers does"]
    assert "upsample" in found["parts"]
