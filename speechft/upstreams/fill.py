"""A model made for weights that are there: no values are drawn only to be overwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import misfit
from speechft.errors import SpeechFTError

Model = TypeVar("Model", bound=nn.Module)


def filled(make: Callable[[], Model], state: Mapping[str, Tensor], source: str, copy: bool = True) -> Model:
    """Build a model and fill it strictly, in float32.

    Args:
        make: builds it; what it draws for its parameters is never drawn.
        state: of all its parameters and buffers, of any types.
        source: for the message.
        copy: False where the model may hold these very tensors, as far as they are float32.

    Raises:
        SpeechFTError: missing, unexpected or wrongly shaped tensors.
    """
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        model = make()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    problems = misfit(expected, {name: tensor.shape for name, tensor in state.items()})
    if problems:
        raise SpeechFTError(
            f"the weights of {source} do not fit its config.json: {problems}", "the checkpoint is foreign or damaged"
        )
    own = {}
    for name, tensor in state.items():
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        own[name] = tensor.to(kind, copy=copy).contiguous()
    model.load_state_dict(own, strict=True, assign=True)
    return model


def drawn(make: Callable[[], Model], seed: int) -> Model:
    """Build a model with fresh weights, fixed by a seed; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
