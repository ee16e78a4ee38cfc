"""transformers loads a folder in the type that its configuration names: it must be the one that is stored."""

import json

import pytest
import torch
from small import save_upstream
from transformers import AutoModel

from speechft.checkpoints.folder import stored_as, write_folder
from speechft.upstreams.load import load_upstream


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_was_fine_tuned_from_half_precision_comes_back_as_written(kind, tmp_path):
    model = AutoModel.from_pretrained(save_upstream(tmp_path / "base")).to(kind)
    model.save_pretrained(tmp_path / "base")
    upstream = load_upstream(tmp_path / "base")
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter += 1e-4
    folder = write_folder(tmp_path / "tuned", upstream.checkpoint())
    back = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(back[name], value) for name, value in upstream.model.state_dict().items())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_only_a_name_that_is_there_is_changed():
    half, single, whole = torch.float16, torch.float32, torch.int64
    assert stored_as({"torch_dtype": "float16"}, [single, whole]) == {"torch_dtype": "float32"}
    assert stored_as({"dtype": "float32", "torch_dtype": None}, [half]) == dict.fromkeys(
        ("dtype", "torch_dtype"), "float16"
    )
    assert stored_as({"a": 1}, [single, single]) == {"a": 1} == stored_as({"a": 1}, [whole])
    assert stored_as({"a": 1}, [half, single]) == {"a": 1, "dtype": "float32"}
