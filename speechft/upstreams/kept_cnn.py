"""The output of a frozen CNN, computed once for each waveform and kept, in memory or on the disk.

A waveform is known by a hash of its samples, so what an augmentation has changed is another waveform and is computed.
Each is computed alone, never in a batch: what is kept is the same bits whenever and beside whatever it was computed, so
a run that goes on with an empty memory ends where the uninterrupted one does. Against a run without keeping, numbers
are equal to float tolerance: a convolution over a batch rounds differently from one over a waveform.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.console import say
from speechft.files import cache_dir, whole_file

PLACES = ("memory", "disk")
_GB = 10**9


class KeptCnn:
    """What a CNN gave for the waveforms announced by `expect`.

    Args:
        compute: a waveform `[samples]` -> `[channels, frames]`.
        key: what the output depends on besides the waveform: the CNN's weights, the normalisation.
        place: `memory`, or `disk`: under the cache folder, for all runs from the same upstream.
        budget: in GB; what does not fit is computed each time. Processes each have their own memory; the disk's budget
            is for the folder of this key.

    Attributes:
        found, computed: how many waveforms were looked up, and how many had to be computed.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], key: str, place: str, budget: float) -> None:
        self._compute = compute
        self._folder = cache_dir() / "cnn" / key if place == "disk" else None
        self._left = int(budget * _GB)
        self._memory: dict[str, Tensor] = {}
        self._expected: dict[int, tuple[Tensor, str]] = {}
        self._told = False
        self.found = self.computed = 0
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._left -= sum(path.stat().st_size for path in self._folder.glob("*/*.safetensors"))

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptCnn:
        return self  # a copy of the upstream has the same CNN

    def expect(self, waves: Sequence[Tensor], digests: Sequence[str] | None) -> None:
        """Announce waveforms that may come next, these very tensors; they replace those announced before."""
        self._expected = {
            id(wave): (wave, name) for wave, name in zip(waves, digests or (), strict=digests is not None)
        }

    def covers(self, waves: Sequence[Tensor]) -> bool:
        """Whether some of these were announced, and nobody has changed those since."""
        return any(id(wave) in self._expected for wave in waves)

    def __call__(self, waves: Sequence[Tensor]) -> Tensor:
        """`[batch, channels, frames]`, zeros where a waveform has ended. Others among them (crops) are computed."""
        announced = (self._expected.get(id(wave), (wave, None)) for wave in waves)
        rows = [
            (self._compute(wave) if name is None else self._one(wave, name)).transpose(0, 1) for wave, name in announced
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)

    def _one(self, wave: Tensor, name: str) -> Tensor:
        if torch.is_autocast_enabled(wave.device.type):  # in half precision it is another output
            name += f"-{str(torch.get_autocast_dtype(wave.device.type)).removeprefix('torch.')}"
        kept = self._read(name, wave.device)
        if kept is not None:
            self.found += 1
            return kept
        self.computed += 1
        features = self._compute(wave)
        self._keep(name, features)
        return features

    def _read(self, name: str, device: torch.device) -> Tensor | None:
        if self._folder is None:
            kept = self._memory.get(name)
            return None if kept is None else kept.to(device, non_blocking=True)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self._path(name), device=str(device))["features"]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError):  # cut off by a power failure: made again
            self._path(name).unlink(missing_ok=True)
            return None

    def _keep(self, name: str, features: Tensor) -> None:
        size = features.numel() * features.element_size()
        self._left -= size
        if self._left < 0:
            self._full()
            return
        if self._folder is None:
            kept = features.detach().to("cpu", copy=True)
            self._memory[name] = kept.pin_memory() if features.is_cuda else kept
            return
        if shutil.disk_usage(self._folder).free < 2 * size + _GB:  # the checkpoints come first
            self._left = 0
            self._full()
            return
        from safetensors.torch import save_file

        with whole_file(self._path(name)) as temporary:
            save_file({"features": features.detach().cpu().contiguous()}, temporary)

    def _full(self) -> None:
        if not self._told:
            self._told = True
            say("keep_cnn: what there is room for is kept, the rest is computed each time (trainer.keep_cnn_gb)")

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / name[:2] / f"{name}.safetensors"
