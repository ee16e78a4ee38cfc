"""The size of an update, and how it is told."""

import pytest
import torch

from speechft.checkpoints.parts import parts_of
from speechft.merge.norms import UpdateNorms, told


def test_norms_by_their_definition_in_the_order_of_the_data_flow():
    torch.manual_seed(0)
    names = ["encoder.layers.10.fc.weight", "encoder.layers.2.fc.weight", "encoder.upsample.weight",
             "layer_norm.weight", "encoder.layer_norm.weight", "feature_projection.weight",
             "feature_extractor.conv.weight"]  # fmt: skip
    weights = {name: (torch.randn(70, 90), torch.randn(70, 90)) for name in names}
    norms = UpdateNorms(parts_of(weights))
    for name, (origin, update) in weights.items():
        norms.add(name, float(origin.double().square().sum()), update)
    record = norms.record()
    assert record["norm"] == pytest.approx(float(torch.cat([update for _, update in weights.values()]).norm()))
    origin, update = weights["encoder.layers.2.fc.weight"]
    assert record["parts"]["layers.2"] == pytest.approx(float(update.norm() / origin.norm()))
    shown = " ".join(told(record)[1:])
    assert [word for word in shown.split() if word[0].isalpha()] == [
        "cnn", "projection", "position", "layers.2", "layers.10", "upsample",
    ]  # fmt: skip
