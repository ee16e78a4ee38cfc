"""Files that documented examples expect: name in the page's comment -> what puts them into a folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch


def s3prl_runner(folder: Path) -> None:
    """A pre-trained `.pt` file in s3prl's format, and a checkpoint of its runner in which the upstream has moved."""
    from speechft.checkpoints.convert import convert
    from speechft.upstreams.load import locate

    if (folder / "dev-best.ckpt").exists():
        return
    whole = convert(locate("hubert_nano"), folder / "hubert_base_ls960.pt", "s3prl")
    weights = torch.load(whole, weights_only=True)["model_weight"]
    generator = torch.Generator().manual_seed(0)
    moved = {
        f"model.{name}": value + 0.01 * torch.randn(value.shape, generator=generator).to(value.dtype)
        for name, value in weights.items()
    }
    torch.save({"Upstream": moved, "Args": argparse.Namespace(upstream="hubert"), "Step": 10}, folder / "dev-best.ckpt")


FIXTURES: dict[str, Callable[[Path], None]] = {"s3prl_runner": s3prl_runner}
