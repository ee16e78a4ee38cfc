"""SE of SUPERB-SG: speech out of noise, Voicebank-DEMAND (s3prl/downstream/enhancement_stft2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from speechft.superb.tasks.masks import MaskTask

_DEV_SPEAKERS = ("p226", "p287")


class SE(MaskTask):
    """PESQ chooses on dev; `si_sdri` is SI-SDR of the enhanced minus that of the noisy waveform, in dB."""

    name = "se"
    folder = "enhancement_stft2"
    metric = "pesq"
    resamples = True
    needs: ClassVar[Mapping[str, str]] = {
        "voicebank": "Voicebank-DEMAND's folder with {clean,noisy}_{trainset_28spk,testset}_wav (or ..._wav_16k), "
        "from datashare.ed.ac.uk/handle/10283/2791",
    }
    mixture = "noisy"
    sources = ("clean",)
    packages: ClassVar[Mapping[str, str]] = {"pesq": "pesq", "pystoi": "pystoi"}
    shown: ClassVar[Mapping[str, str]] = {"pesq": "pesq", "stoi": "stoi", "si_sdr": "si_sdri"}

    def folders(self, root: Path, split: str) -> Mapping[str, Path]:
        part = "testset" if split == "test" else "trainset_28spk"
        found = {}
        for condition in ("noisy", "clean"):
            names = [f"{condition}_{part}_wav_16k", f"{condition}_{part}_wav"]
            found[condition] = next((root / name for name in names if (root / name).is_dir()), root / names[-1])
        return found

    def keeps(self, name: str, split: str) -> bool:
        """Two of the training speakers are the dev set (s3prl's scripts/Voicebank/data_prepare.py)."""
        return split == "test" or name.startswith(_DEV_SPEAKERS) == (split == "dev")
