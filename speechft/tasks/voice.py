"""A speaker encoder as a source of targets: what tells voices apart, for pre-training on more than sounds.

The network is the one trained with the GE2E loss (1710.10467, section 2: three LSTMs over windows of 1.6 s; here of mel
energies) whose weights the Python package Resemblyzer ships (`resemblyzer/pretrained.pt`, Apache-2.0; trained on
LibriSpeech's "other" half and VoxCeleb 1 and 2). Nothing of that package is needed but this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import misfit
from speechft.checkpoints.unpickle import load_untrusted
from speechft.errors import SpeechFTError

WINDOW_SECONDS, HOP_SECONDS = 1.6, 0.8
_WINDOW, _HOP = 160, 80  # mel frames, 10 ms each
_BANDS, _WIDTH = 40, 256
_QUIETEST = -30.0  # dB below full scale: quieter speech is raised to this level


class VoiceEncoder(nn.Module):
    """Waveforms to voice vectors, one for every 0.8 s.

    Args:
        path: `pretrained.pt`: a dictionary whose `model_state` has `lstm.*` and `linear.*`.

    Raises:
        SpeechFTError: the file is missing, damaged, or of another network.
    """

    mel: Tensor
    window: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.lstm = nn.LSTM(_BANDS, _WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(_WIDTH, _WIDTH)
        content = load_untrusted(path)
        state = content.get("model_state") if isinstance(content, dict) else None
        if not isinstance(state, dict):
            raise SpeechFTError(f"{path} is no voice encoder (no model_state)", "give Resemblyzer's pretrained.pt")
        # the two numbers that scale similarities in the loss have no part in the vectors
        state = {key: value for key, value in state.items() if not key.startswith("similarity_")}
        problems = misfit({key: value.shape for key, value in self.state_dict().items()},
                          {key: value.shape for key, value in state.items()})  # fmt: skip
        if problems:
            raise SpeechFTError(f"{path} is no voice encoder: {problems}", "give Resemblyzer's pretrained.pt")
        self.load_state_dict(state)
        filters = melscale_fbanks(201, 0.0, 8000.0, _BANDS, 16_000, norm="slaney", mel_scale="slaney")
        self.register_buffer("mel", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """For each waveform (`[samples]`, 16 kHz) its vectors `[windows, 256]`: non-negative, of length 1."""
        windows = [self._windows(wave) for wave in waves]
        hidden = self.lstm(torch.cat(windows))[0][:, -1]
        return list(nn.functional.normalize(self.linear(hidden).relu(), dim=1).split([len(one) for one in windows]))

    def _windows(self, wave: Tensor) -> Tensor:
        """Mel energies `[windows, 160, 40]`; less than a window is filled up with silence."""
        level = 20 * torch.log10(wave.square().mean().sqrt().clamp(min=1e-9))
        wave = wave * 10 ** ((_QUIETEST - level).clamp(min=0.0) / 20)
        spectrum = torch.stft(wave, 400, 160, window=self.window, pad_mode="constant", return_complex=True)
        mels = (self.mel.T @ spectrum.abs().square()).T
        mels = nn.functional.pad(mels, (0, 0, 0, max(0, _WINDOW - len(mels))))
        return mels.unfold(0, _WINDOW, _HOP).transpose(1, 2)
