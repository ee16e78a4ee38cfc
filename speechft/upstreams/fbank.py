"""80 log-mel filter banks with deltas: the baseline that SUPERB calls FBANK, behind the same protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechft.upstreams.base import Hidden, Identity, Upstream, pad_waveforms

_WINDOW = 400
_HOP = 160


class Fbank(Upstream):
    """Log-mels (25 ms windows every 10 ms, 80 bands of 20-7600 Hz) with first and second deltas, per frame.

    Args:
        name: for the identity.
        deltas: how many orders of deltas (0, 1 or 2); each is a least-squares slope over 5 frames.
        mean_norm: subtract each utterance's mean (s3prl's `fbank` does). Averaged over time such features carry
            nothing, which is why SUPERB's FBANK scores chance on SID; without it they are a stronger baseline.
    """

    mel: Tensor
    window: Tensor

    def __init__(self, name: str = "fbank", deltas: int = 2, mean_norm: bool = False) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.deltas, self.mean_norm = deltas, mean_norm
        self.dim = 80 * (1 + deltas)
        self.num_layers, self.hop = 1, _HOP
        what = f"80 bands, {deltas} deltas, mean_norm={mean_norm}"
        self.identity = Identity(name, "fbank", what, False, hashlib.sha256(what.encode()).hexdigest())
        self.register_buffer("mel", melscale_fbanks(257, 20.0, 7600.0, 80, 16_000, mel_scale="htk"))
        self.register_buffer("window", torch.hann_window(_WINDOW))

    def frame_counts(self, samples: Tensor) -> Tensor:
        return torch.div(samples.clamp(min=_WINDOW) - _WINDOW, _HOP, rounding_mode="floor") + 1

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return {}

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        del last_only  # there is one layer
        waves, lengths = pad_waveforms(waveforms, _WINDOW, normalize=False)
        frames = self.frame_counts(lengths)
        windows = waves.unfold(-1, _WINDOW, _HOP) * self.window  # [batch, frames, window]
        power = torch.fft.rfft(windows, n=512).abs().square()
        with torch.autocast(power.device.type, enabled=False):
            features = torch.log(power @ self.mel + 1e-6)
            states = [self._one(item[:count]) for item, count in zip(features, frames.tolist(), strict=True)]
        return Hidden([nn.utils.rnn.pad_sequence(states, batch_first=True)], frames)

    def _one(self, log_mels: Tensor) -> Tensor:
        from torchaudio.functional import compute_deltas

        orders = [log_mels.T[None]]
        for _ in range(self.deltas):
            orders.append(compute_deltas(orders[-1]))
        features = torch.cat(orders, dim=1)[0].T
        return features - features.mean(0) if self.mean_norm else features
