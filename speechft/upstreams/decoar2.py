"""DeCoAR 2.0 (2012.06659): normalised log-mels, every second frame, a linear projection, a transformer.

Follows `s3prl/upstream/decoar2/{audio,decoar2,expert}.py`. Hugging Face has no such class; its wav2vec 2.0 transformer
is the same one, so DeCoAR 2.0 lives in a folder of the usual files with `model_type: decoar2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechft.checkpoints.computing import computing_hash
from speechft.checkpoints.folder import Checkpoint
from speechft.checkpoints.hashing import weights_sha256
from speechft.errors import UsageError
from speechft.upstreams.base import Hidden, Identity, Upstream
from speechft.upstreams.dropout import cheapen, register
from speechft.upstreams.fill import drawn, filled
from speechft.upstreams.speech_encoder import encoder_parts, encoder_states

_WINDOW, _HOP = 400, 160
_MINIMUM = _WINDOW + _HOP
"""Samples of two log-mel frames: a deviation over one frame is not defined."""


class _Model(nn.Module):
    def __init__(self, config: Any, bands: int) -> None:
        super().__init__()
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Encoder

        self.projection = nn.Linear(bands, config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)
        self.encoder = Wav2Vec2Encoder(config)


class Decoar2(Upstream):
    """DeCoAR 2.0 behind the upstream protocol. It has no convolutions over the waveform, so its part `cnn` is empty.

    Args:
        model: projection and transformer.
        config: the content of `config.json`, written back unchanged by `checkpoint()`.
        preprocessor: the content of `preprocessor_config.json`.
        identity: what it is.
    """

    trainable = True

    def __init__(self, model: Any, config: dict[str, Any], preprocessor: dict[str, Any], identity: Identity):
        super().__init__()
        self.model = model
        self.original_config, self.preprocessor, self.identity = config, preprocessor, identity
        self.bands, self.dim = model.projection.in_features, model.projection.out_features
        self.num_layers = len(model.encoder.layers) + 1
        self.hop = 2 * _HOP

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layers)

    def frame_counts(self, samples: Tensor) -> Tensor:
        return (samples.clamp(min=_MINIMUM) - _WINDOW) // (2 * _HOP) + 1

    def log_mels(self, wave: Tensor) -> Tensor:
        """One waveform `[samples]` to `[frames, bands]` at 50 Hz, each band of zero mean and unit variance."""
        from torchaudio.compliance import kaldi

        wave = nn.functional.pad(wave.float(), (0, max(0, _MINIMUM - wave.numel())))
        with torch.autocast(wave.device.type, enabled=False):
            mels = kaldi.fbank(
                wave[None], num_mel_bins=self.bands, sample_frequency=16_000, window_type="hamming", dither=0.0
            )
        return ((mels - mels.mean(0)) / (1e-10 + mels.std(0)))[::2]

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        with torch.no_grad():
            mels = [self.log_mels(wave) for wave in waveforms]
        frames = torch.tensor([len(item) for item in mels], device=mels[0].device)
        hidden = self.model.dropout(self.model.projection(nn.utils.rnn.pad_sequence(mels, batch_first=True)))
        states = encoder_states(self.model.encoder, hidden, frames, last_only)
        return Hidden([state.float() for state in states], frames)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return {"cnn": [], "projection": list(self.model.projection.parameters()), **encoder_parts(self.model.encoder)}

    def checkpoint(self) -> Checkpoint:
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return Checkpoint(dict(self.original_config), dict(self.preprocessor), state)


def build(
    checkpoint: Checkpoint, name: str, source: str, normalize: bool | None = None, random_seed: int | None = None,
    dropout: float | None = None,
) -> Decoar2:  # fmt: skip
    """Build the model of a checkpoint and fill it strictly.

    Args:
        checkpoint: configuration and weights.
        name, source: for the identity.
        normalize: must not be true: log-mels are normalised, the waveform is not.
        random_seed: draw fresh weights instead.
        dropout: replaces every dropout rate while the upstream is used.

    Raises:
        UsageError: `normalize` is true.
        SpeechFTError: missing, unexpected or wrongly shaped tensors.
    """
    from transformers import Wav2Vec2Config

    if normalize:
        raise UsageError("DeCoAR 2.0 takes waveforms as they are", "leave upstream.normalize out")
    rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    changed = {} if dropout is None else dict.fromkeys(rates, dropout)
    settings = {key: value for key, value in checkpoint.config.items() if key not in ("model_type", "architectures")}
    config = Wav2Vec2Config.from_dict({**settings, "layerdrop": 0.0, **changed})
    config._attn_implementation = register()
    bands = int(checkpoint.config.get("num_mel_bins", 80))
    if random_seed is None:
        model = filled(lambda: _Model(config, bands), checkpoint.state, source, copy=checkpoint.mapped is None)
    else:
        model = drawn(lambda: _Model(config, bands), random_seed)
    cheapen(model)
    sha256 = checkpoint.sha256 or weights_sha256(model.state_dict())
    identity = Identity(name, "decoar2", source, False, sha256, computing=computing_hash(config))
    return Decoar2(model.float(), checkpoint.config, checkpoint.preprocessor, identity).eval()
