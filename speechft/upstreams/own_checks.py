"""Whether a class of the user's own keeps to the upstream protocol, seen on a second of noise; and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.checkpoints.folder import OWN, read_folder, read_tensors
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json
from speechft.upstreams.base import Upstream

_SEE = "speechft.upstreams.base.Upstream says what each is"
_NOTICEABLE = 1e-3
"""A relative change of features beside a longer waveform that is more than rounding."""


def read_weights(found: Any, path: Path) -> Mapping[str, Tensor]:
    """Weights for a class of the user's own, by the names of its state dictionary.

    Args:
        found: the class; its own `read_weights(path)`, if it has one, reads the file.
        path: that file; a safetensors file, a `.pt` file of plain tensors; or the folder of an own upstream.

    Raises:
        UsageError: nothing is there.
        SpeechFTError: it cannot be read.
    """
    if path.is_dir() and (path / "config.json").is_file() and read_json(path / "config.json").get("model_type") == OWN:
        return read_folder(path).state
    if not path.exists():
        raise UsageError(f"upstream.source: there is no {path}", "give the file of the weights")
    reader = getattr(found, "read_weights", None)
    if reader is not None:
        return dict(reader(path))
    try:
        return read_tensors(path)
    except SpeechFTError as error:
        raise SpeechFTError(
            error.what, f"save its state_dict() alone, or give {found.__name__} a static method read_weights(path)"
        ) from error


def check_model(model: Upstream, setting: str) -> None:
    """Whether sizes are there, as attributes.

    Raises:
        UsageError: one is not, or is no positive whole number.
    """
    name = type(model).__name__
    for key in ("dim", "num_layers", "hop"):
        value = getattr(model, key, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{setting}: {name}.{key} is {value!r}, not a positive whole number", _SEE)
    counts = model.frame_counts(torch.tensor([16_000, 32_000]))
    if not isinstance(counts, Tensor) or counts.shape != (2,) or counts.is_floating_point():
        raise UsageError(f"{setting}: {name}.frame_counts gives {_shown(counts)} for two waveforms",
                         "give a whole number for each: [batch] int64")  # fmt: skip


@torch.inference_mode()
def check_features(upstream: Upstream, name: str, setting: str) -> None:
    """Run it on noise; its states and frame counts must be what it says, and must not depend on the batch.

    Args:
        upstream: ready for inference.
        name: of its class.
        setting: for messages.

    Raises:
        UsageError: it fails, or gives something else than it says.
    """
    generator = torch.Generator().manual_seed(0)
    waves = [0.1 * torch.randn(samples, generator=generator) for samples in (16_000, 9_000, 0)]
    try:
        together, alone, last = upstream(waves), upstream(waves[1:2]), upstream(waves, last_only=True)
    except SpeechFTError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{setting}: {name} fails on a second of noise ({type(error).__name__}: {error})",
                         "run again with --debug to see where") from error  # fmt: skip
    expected = upstream.frame_counts(torch.tensor([len(wave) for wave in waves]))
    frames = together.frames
    if frames.tolist() != expected.tolist():
        raise UsageError(f"{setting}: {name} gives {frames.tolist()} frames where its frame_counts says "
                         f"{expected.tolist()}", "mend one of the two")  # fmt: skip
    counts = (len(together.states), len(last.states))
    if counts != (upstream.num_layers, 1):
        raise UsageError(f"{setting}: {name} gives {counts[0]} states, and {counts[1]} with last_only; its num_layers "
                         f"is {upstream.num_layers}", "give so many, and one with last_only")  # fmt: skip
    for number, state in enumerate(together.states):
        fits = state.dim() == 3 and len(state) == len(waves) and state.shape[1] >= int(frames.max())
        if not fits or state.shape[2] != upstream.dim:
            raise UsageError(f"{setting}: state {number} of {name} is {_shown(state)} for {len(waves)} waveforms of at "
                             f"most {int(frames.max())} frames; its dim is {upstream.dim}",
                             "give [batch, frames, dim]")  # fmt: skip
        if not bool(state.isfinite().all()):
            raise UsageError(f"{setting}: state {number} of {name} is not finite", "mend the class or its weights")
    if last.last.shape != together.last.shape or not torch.allclose(last.last, together.last, rtol=1e-3, atol=1e-4):
        raise UsageError(f"{setting}: {name}: its last state is another one with last_only", "give the last one alone")
    count = int(alone.frames[0])
    change = max(
        float((own[0, :count] - batched[1, :count]).norm() / own[0, :count].norm().clamp(min=1e-9))
        for own, batched in zip(alone.states, together.states, strict=True)
    )
    if change > _NOTICEABLE:
        say(f"{name}: beside a longer waveform the features of a waveform change by {100 * change:.1f} %; scores will "
            "depend a little on which waveforms share a batch (mask what is padding)")  # fmt: skip


def _shown(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
