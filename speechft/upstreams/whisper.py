"""Whisper's encoder (2212.04356): log-mels, two convolutions, a transformer (transformers' modules)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechft.checkpoints.computing import computing_hash
from speechft.checkpoints.folder import WHISPER_ENCODER, Checkpoint, of_upstream
from speechft.checkpoints.hashing import weights_sha256
from speechft.upstreams.base import Hidden, Identity, Upstream
from speechft.upstreams.fill import drawn, filled

_WINDOW, _HOP = 400, 160
_DYNAMIC_RANGE = 8.0
"""Log-mels (base 10) further than this below an utterance's loudest are raised (OpenAI's `log_mel_spectrogram`)."""


class WhisperEncoder(Upstream):
    """Whisper's encoder on speech as long as it is, rather than padded to 30 s.

    Whisper was trained on 30 s with silence at the end. Here the sinusoidal positions are cut to the speech, which
    changes the features a little and saves most of the time on short utterances. Longer recordings are encoded in
    pieces of 30 s that do not see each other.

    Args:
        model: transformers' `WhisperEncoder`.
        config: the original `config.json`.
        preprocessor: the original `preprocessor_config.json`.
        identity: what it is.
    """

    trainable = True
    mel: Tensor
    window: Tensor

    def __init__(self, model: Any, config: dict[str, Any], preprocessor: dict[str, Any], identity: Identity):
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        self.model = model
        self.original_config, self.preprocessor, self.identity = config, preprocessor, identity
        self.dim = model.config.d_model
        self.num_layers = model.config.encoder_layers + 1
        self.hop = 2 * _HOP
        self.first_centre = 0.0  # its windows are centred on multiples of the hop
        self._longest = model.config.max_source_positions * self.hop
        filters = mel_filter_bank(
            201, model.config.num_mel_bins, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("mel", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.model.layers)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """Frames of the pieces together; under one hop of 20 ms there is still one."""
        whole, rest = samples // self._longest, samples % self._longest
        per_piece = self._longest // self.hop
        last = torch.where(rest > 0, (rest // _HOP + 1).div(2, rounding_mode="floor").clamp(min=1), 0)
        return (whole * per_piece + last).clamp(min=1)

    def log_mels(self, wave: Tensor) -> Tensor:
        """One waveform `[samples]` to `[bins, samples // 160]`, scaled as Whisper's feature extractor does."""
        if wave.numel() < self.hop:
            wave = functional.pad(wave, (0, self.hop - wave.numel()))
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(wave.float(), _WINDOW, _HOP, window=self.window, return_complex=True)
            power = spectrum[:, : wave.numel() // _HOP].abs().square()
            mels = (self.mel.T @ power).clamp(min=1e-10).log10()
        return (torch.maximum(mels, mels.max() - _DYNAMIC_RANGE) + 4.0) / 4.0

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        pieces = [list(wave.split(self._longest)) for wave in waveforms]
        flat = [piece for item in pieces for piece in item]
        states, frames = self._encode([self.log_mels(piece) for piece in flat], last_only)
        if len(flat) > len(pieces):
            states, frames = _rejoin(states, frames, [len(item) for item in pieces])
        return Hidden([state.float() for state in states], frames)

    def _encode(self, mels: list[Tensor], last_only: bool) -> tuple[list[Tensor], Tensor]:
        counts = torch.tensor([item.shape[1] for item in mels], device=mels[0].device)
        padded = nn.utils.rnn.pad_sequence([item.T for item in mels], batch_first=True).transpose(1, 2)
        # The convolutions pad with zeros, so zeros beyond the end make a waveform the same alone and in a batch.
        hidden = functional.gelu(self.model.conv1(padded))
        hidden = hidden * (torch.arange(hidden.shape[2], device=counts.device) < counts[:, None])[:, None]
        hidden = functional.gelu(self.model.conv2(hidden)).transpose(1, 2)
        frames = (counts + 1) // 2
        hidden = hidden + self.model.embed_positions.weight[: hidden.shape[1]]
        hidden = functional.dropout(hidden, self.model.dropout, self.training)
        valid = torch.arange(hidden.shape[1], device=counts.device) < frames[:, None]
        mask = None
        if not bool(valid.all()):
            mask = torch.zeros_like(valid, dtype=hidden.dtype).masked_fill(~valid, torch.finfo(hidden.dtype).min)
            mask = mask[:, None, None, :].expand(-1, 1, hidden.shape[1], -1)
        states = [hidden]
        for layer in self.model.layers:
            output = layer(states[-1], mask)
            states.append(output[0] if isinstance(output, tuple) else output)
        states[-1] = self.model.layer_norm(states[-1])
        return (states[-1:] if last_only else states), frames

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """All but the positions, which are fixed sinusoids and never train."""
        model = self.model
        parts = {"cnn": [*model.conv1.parameters(), *model.conv2.parameters()]}
        for index, layer in enumerate(model.layers):
            parts[f"layers.{index}"] = list(layer.parameters())
        parts["layer_norm"] = list(model.layer_norm.parameters())
        return parts

    def checkpoint(self) -> Checkpoint:
        """The present weights with the configuration they came with; of a whole Whisper, the encoder's alone."""
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return Checkpoint(of_upstream(self.original_config), dict(self.preprocessor), state)


def _rejoin(states: list[Tensor], frames: Tensor, pieces: list[int]) -> tuple[list[Tensor], Tensor]:
    """Put the pieces of each recording behind one another."""
    counts = [group.tolist() for group in frames.split(pieces)]
    joined = []
    for state in states:
        rows = [
            torch.cat([piece[:count] for piece, count in zip(group, own, strict=True)])
            for group, own in zip(state.split(pieces), counts, strict=True)
        ]
        joined.append(nn.utils.rnn.pad_sequence(rows, batch_first=True))
    return joined, torch.tensor([sum(own) for own in counts], device=frames.device)


def build(
    checkpoint: Checkpoint, name: str, source: str, random_seed: int | None = None, dropout: float | None = None
) -> WhisperEncoder:
    """Build the encoder of a Whisper checkpoint (the encoder alone, or a whole model) and fill it strictly.

    Args:
        checkpoint: configuration and weights.
        name, source: for the identity.
        random_seed: draw fresh weights instead.
        dropout: replaces every dropout rate while the upstream is used.

    Raises:
        SpeechFTError: missing, unexpected or wrongly shaped tensors.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model

    rates = {} if dropout is None else dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout)
    config = WhisperConfig.from_dict({**checkpoint.config, "encoder_layerdrop": 0.0, "dtype": "float32", **rates})
    config._attn_implementation = "sdpa"
    if random_seed is None:
        whole = any(key.startswith(WHISPER_ENCODER) for key in checkpoint.state)
        state = {
            key.removeprefix("model.").removeprefix("encoder."): tensor
            for key, tensor in checkpoint.state.items()
            if not whole or key.startswith(WHISPER_ENCODER)
        }
        model = filled(lambda: Model(config), state, source, copy=checkpoint.mapped is None)
    else:
        model = drawn(lambda: Model(config), random_seed)
    sha256 = checkpoint.sha256 or weights_sha256(model.state_dict())
    identity = Identity(name, "whisper", source, False, sha256, computing=computing_hash(config))
    return WhisperEncoder(model.float(), checkpoint.config, checkpoint.preprocessor, identity).eval()
