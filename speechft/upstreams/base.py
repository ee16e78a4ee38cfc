"""The protocol every upstream speaks: a list of waveforms in, all hidden states and frame counts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import Checkpoint
from speechft.checkpoints.parts import parts_of
from speechft.errors import UsageError


@dataclass(frozen=True)
class Hidden:
    """What an upstream computes from a batch.

    Attributes:
        states: one tensor `[batch, frames, dim]` (float32) per layer: the input of the first transformer layer, then
            the output of each. With `last_only` there is only the last one.
        frames: `[batch]` int64, the number of valid frames of each waveform; states beyond it are padding.
    """

    states: list[Tensor]
    frames: Tensor

    @property
    def last(self) -> Tensor:
        """The last hidden state, `[batch, frames, dim]`."""
        return self.states[-1]


@dataclass(frozen=True)
class Identity:
    """What makes two upstreams the same: features may be shared only between equal identities.

    Attributes:
        name: what the user called it.
        family: architecture (`hubert`, `wav2vec2`, `wavlm`, `fbank`; of the user's own `own-CLASS-HASH`, a hash of its
            code and options).
        source: path or hub name of the weights.
        normalize: whether each waveform is scaled to zero mean and unit variance first.
        sha256: hash of all weights (names, shapes, types and bytes).
        padding: how padded batches are computed (`padded.py`).
        chunk_seconds: longer recordings are heard in pieces of so many seconds (`chunked.py`); None for never.
        chunk_overlap: seconds that neighbouring pieces share.
        computing: hash of what else of the configuration changes the features (`checkpoints/computing.py`), such as the
            number of attention heads; empty where there is no such thing.
    """

    name: str
    family: str
    source: str
    normalize: bool
    sha256: str
    padding: str = "own"
    chunk_seconds: float | None = None
    chunk_overlap: float = 0.0
    computing: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def key(self) -> str:
        """What features depend on: the name and the source do not matter."""
        padding = "" if self.padding == "own" else f"-{self.padding}"
        chunks = "" if self.chunk_seconds is None else f"-chunks{self.chunk_seconds:g}+{self.chunk_overlap:g}"
        heard = f"{'norm' if self.normalize else 'raw'}{padding}{chunks}"
        return f"{self.family}-{heard}-{self.sha256}" + (f"-{self.computing}" if self.computing else "")


class Upstream(nn.Module, ABC):
    """A frozen or trainable feature extractor.

    Attributes:
        dim: size of a hidden state.
        num_layers: how many hidden states there are (transformer layers + 1; SEW's upsampled output is one more).
        hop: samples from one frame to the next (320 at 16 kHz: 50 frames a second).
        trainable: whether stage 1 can fine-tune it.
        first_centre: the middle of what the first frame hears, in seconds.
        identity: see `Identity`; fixed at loading, so it names the weights an evaluation started from.
    """

    dim: int
    num_layers: int
    hop: int
    trainable: bool = False
    first_centre: float = 0.0125
    identity: Identity

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return 16_000 / self.hop

    @property
    def grid(self) -> int:
        """Samples by whose multiples a waveform may be cut at the left without moving its frames."""
        return self.hop

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The transformer's layers: what `torch.compile` is worth its while for. Here: the module list of that name."""
        own = self._modules.get("layers")
        return list(own) if isinstance(own, nn.ModuleList) else ()

    def __call__(self, waveforms: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """`forward`, after a look at the waveforms; NumPy's are taken, too.

        Raises:
            UsageError: no waveforms, or something that is no waveform.
        """
        return super().__call__(checked_waveforms(waveforms), *args, **kwargs)

    @abstractmethod
    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        """Waveforms (1-D float, 16 kHz) to hidden states.

        A waveform's states do not depend on what else is in the batch, to float32 tolerance. One too short for a frame,
        even an empty one, counts as followed by zeros, and gives a frame.
        """

    def cnn_key(self) -> str | None:
        """What the output of its CNN depends on besides the waveform: equal keys, equal output. None where there is no
        CNN to share (`together.py`) or keep (`kept_cnn.py`)."""
        return None

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """What a strategy may freeze: `cnn`, `projection`, `position`, `layers.0` ... A parameter is in one part.

        Here: by the parameters' names, as merging has it (`checkpoints/parts.py`).
        """
        named = dict(self.named_parameters())
        found: dict[str, list[nn.Parameter]] = {}
        for name, part in parts_of(named).items():
            found.setdefault(part, []).append(named[name])
        return found

    def checkpoint(self) -> Checkpoint:
        """The present weights with the configuration they came with.

        Raises:
            UsageError: it has no weights.
        """
        raise UsageError(f"{self.identity.name} has no weights to write", "choose a pre-trained upstream")

    @abstractmethod
    def frame_counts(self, samples: Tensor) -> Tensor:
        """Frames for waveforms of so many samples: `[batch]` int64 -> `[batch]` int64."""


def checked_waveforms(waveforms: Sequence[Tensor]) -> Sequence[Tensor]:
    """The waveforms, NumPy's as tensors; or one line about what is no list of 1-D floating-point ones.

    Raises:
        UsageError: an empty list; an element that is no tensor, not 1-D, or of whole numbers.
    """
    if any(isinstance(wave, np.ndarray) for wave in waveforms):
        waveforms = [torch.from_numpy(wave) if isinstance(wave, np.ndarray) else wave for wave in waveforms]
    if len(waveforms) == 0:
        raise UsageError("an upstream was given no waveforms", "give a list of at least one")
    for number, wave in enumerate(waveforms):
        what = f"waveform {number} of {len(waveforms)} is"
        if not isinstance(wave, Tensor):
            raise UsageError(f"{what} no tensor but {type(wave).__name__}", "give its samples (load_audio)")
        if wave.dim() != 1:
            raise UsageError(f"{what} of shape {tuple(wave.shape)}", "give each as one channel of samples, [samples]")
        if not wave.is_floating_point():
            raise UsageError(f"{what} of {wave.dtype}", "give floats in [-1, 1]: 16-bit samples as wave / 32768")
    return waveforms


def scaled(wave: Tensor) -> Tensor:
    """A waveform `[samples]` at zero mean and unit variance, float32; an empty one stays empty."""
    wave = wave.to(torch.float32)
    return nn.functional.layer_norm(wave, wave.shape) if wave.numel() else wave


def pad_waveforms(waveforms: Sequence[Tensor], minimum: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Stack waveforms of different lengths.

    Args:
        waveforms: 1-D float tensors.
        minimum: shorter ones are padded with zeros to so many samples (one frame of the upstream).
        normalize: scale each to zero mean, unit variance before padding (fairseq's `normalize`: layer norm over time).

    Returns:
        `[batch, samples]` float32 and `[batch]` int64 lengths.
    """
    device = waveforms[0].device
    waves = [wave.to(torch.float32) for wave in waveforms]
    if normalize:
        waves = [scaled(wave) for wave in waves]
    waves = [nn.functional.pad(wave, (0, max(0, minimum - wave.numel()))) for wave in waves]
    lengths = torch.tensor([wave.numel() for wave in waves], device=device)
    return nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths
