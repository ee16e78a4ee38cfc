"""Parents that several tests merge."""

from __future__ import annotations

import shutil

import pytest
import torch
import transformers
from small import save_upstream


@pytest.fixture(scope="package")
def parents(tmp_path_factory):
    """θ0 and two θ' that differ from it in every tensor."""
    root = tmp_path_factory.mktemp("parents")
    base = save_upstream(root / "base", seed=0)
    others = []
    for number in (1, 2):
        folder = root / f"tuned{number}"
        shutil.copytree(base, folder)
        model = transformers.AutoModel.from_pretrained(base)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder)
        others.append(folder)
    return base, others
