"""How much faster several upstreams with one CNN hear the same audio together than one after the other.

They are what fine-tuning and merging leave of one pre-trained model: the CNN is the same, all else is not. Both sides
give the same bits, which is checked; reading audio, which is shared as well, is not part of it.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch

from speechft.bench.counts import check_counts
from speechft.bench.forward import SIZES
from speechft.bench.forward import Setting as Forward
from speechft.bench.forward import waveforms as noise
from speechft.checkpoints.folder import Checkpoint
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.superb.extract import encode, encode_together
from speechft.superb.settings import batch_seconds_of
from speechft.upstreams.base import Upstream
from speechft.upstreams.numerics import Numerics
from speechft.upstreams.speech_encoder import build
from speechft.upstreams.together import Together
from speechft.versions import versions

_RATE = 16_000


@dataclass(frozen=True)
class Setting(Forward):
    """What is measured: as of `scripts/bench forward`, but for how many models, and for batches, which are SUPERB's."""

    models: int = 4

    @classmethod
    def read(cls, arguments: Namespace) -> Setting:
        """From the command line.

        Raises:
            UsageError: a value that makes no sense.
        """
        check_counts(arguments, ("models",))
        if arguments.models < 2:
            raise UsageError("--models is 1", "give at least 2")
        return cast(Setting, super().read(Namespace(**{**vars(arguments), "batch": 1, "compile": False})))


def family(setting: Setting) -> list[Upstream]:
    """So many upstreams with random weights, and the CNN of the first."""
    import transformers

    found: list[Upstream] = []
    config = transformers.HubertConfig(**SIZES[setting.size]).to_dict()
    for number in range(setting.models):
        torch.manual_seed(setting.seed + number)
        state = dict(transformers.HubertModel(transformers.HubertConfig(**config)).state_dict())
        if found:
            cnn = found[0].state_dict()
            state.update({key: cnn[f"model.{key}"] for key in state if key.startswith("feature_extractor.")})
        checkpoint = Checkpoint(config, {"do_normalize": False}, state)
        found.append(build(checkpoint, f"model {number}", "random weights", None, None).to(setting.device))
    return found


def measure(setting: Setting) -> dict[str, Any]:
    """Run the comparison.

    Returns:
        Every figure, as the last line of `scripts/bench together` has it.

    Raises:
        SpeechFTError: the two sides do not give the same bits.
    """
    before = torch.get_num_threads()
    if setting.threads:
        torch.set_num_threads(setting.threads)
    try:
        return _measure(setting)
    finally:
        torch.set_num_threads(before)


def _measure(setting: Setting) -> dict[str, Any]:
    device, numerics = torch.device(setting.device), Numerics(setting.precision)
    say(f"making {setting.models} models")
    upstreams = family(setting)
    together = Together(upstreams)
    waves = [wave.numpy() for wave in noise(setting)]
    seconds = batch_seconds_of(None, setting.device)
    times: dict[str, list[float]] = {"one after the other": [], "together": []}
    everyone = list(range(setting.models))

    def once(name: str) -> list[list[np.ndarray]]:
        began = time.perf_counter()
        if name == "together":
            found = encode_together(together, everyone, waves, "pooled", device, seconds, numerics)
        else:
            found = [encode(upstream, waves, "pooled", device, seconds, numerics) for upstream in upstreams]
        times[name].append(time.perf_counter() - began)  # both end with copies to the CPU
        return found

    apart, shared = (once(name) for name in times)
    if any(
        not np.array_equal(a, b)
        for one, other in zip(apart, shared, strict=True)
        for a, b in zip(one, other, strict=True)
    ):
        raise SpeechFTError("the features together are not those of each alone", "this comparison is void")
    for measured in times.values():
        measured.clear()  # that was to warm up
    for repetition in range(setting.repetitions):
        for name in list(times)[:: 1 if repetition % 2 else -1]:
            once(name)
            say(f"{repetition + 1}/{setting.repetitions} {name}: {times[name][-1]:.2f} s")
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    return {
        "bench": "together",
        "ratio": medians["one after the other"] / medians["together"],
        "seconds_measured": times,
        "audio_seconds": sum(map(len, waves)) / _RATE,
        **{name: value for name, value in asdict(setting).items() if name not in ("batch", "compile")},
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPUs",
        "threads": setting.threads or torch.get_num_threads(),
        "versions": versions(),
    }


def table(record: dict[str, Any]) -> list[str]:
    """The figures for people, as Markdown."""
    shape = f"{record['waveforms']} waveforms, {record['audio_seconds']:.0f} s in all"
    where = f"{record['device_name']}, {record['threads']} threads, precision {record['precision']}"
    lines = [f"{record['models']} of HuBERT {record['size']} with one CNN, random weights; {shape}; {where}", ""]
    lines += ["| | seconds, median | spread |", "|---|---|---|"]
    for name, measured in record["seconds_measured"].items():
        lines.append(f"| {name} | {statistics.median(measured):.2f} | {min(measured):.2f}-{max(measured):.2f} |")
    return [*lines, "", f"together is {record['ratio']:.2f} times as fast; the features are equal to the bit", ""]
