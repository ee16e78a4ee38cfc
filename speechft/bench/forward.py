"""How much audio a second each of three implementations of HuBERT takes through its forward pass.

All have the same random weights and hear the same waveforms with the same threads; all hidden states are computed.

| | batches |
|---|---|
| speechft | bucketed by length, none larger than the others' largest can be |
| s3prl | `HubertModel` of `s3prl/upstream/hubert`, through `s3prl.hub`, in the given order |
| transformers | `HubertModel` with an attention mask, in the given order |
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.bench.counts import check_counts
from speechft.checkpoints.convert import convert
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.superb import compat
from speechft.superb.extract import batches_by_seconds
from speechft.superb.quiet import quiet
from speechft.superb.settings import resolve_device
from speechft.upstreams.load import load_upstream
from speechft.upstreams.numerics import Numerics
from speechft.versions import versions

SIZES: dict[str, dict[str, Any]] = {
    "base": {},  # HubertConfig's own values
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "initializer_range": 0.2,  # with HuBERT's 0.02 layers this narrow would hardly change their input
    },
}  # fmt: skip
_RATE = 16_000
_TOLERANCE = 1e-3

Forward = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""A batch of waveforms -> all hidden states, each `[batch, frames, dim]`."""


@dataclass(frozen=True)
class Setting:
    """What is measured; every field is an option of the command."""

    device: str = "cpu"
    precision: str = "no"
    compile: bool = False
    waveforms: int = 24
    seconds: tuple[float, float] = (1.0, 3.0)
    batch: int = 8
    repetitions: int = 3
    threads: int | None = None
    seed: int = 0
    size: str = "base"

    @classmethod
    def read(cls, arguments: Namespace) -> Setting:
        """From the command line.

        Raises:
            UsageError: a value that makes no sense.
        """
        check_counts(arguments, ("waveforms", "batch", "repetitions", "threads"))
        shortest, longest = arguments.seconds
        if not 0.1 <= shortest <= longest:
            raise UsageError(f"--seconds {shortest:g} {longest:g} is no range", "the shorter first, at least 0.1")
        if arguments.size not in SIZES:
            raise UsageError(f"unknown --size {arguments.size!r}", f"known: {', '.join(SIZES)}")
        Numerics.read(arguments.precision, arguments.compile)
        values = {name: getattr(arguments, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "device": resolve_device(arguments.device), "seconds": (shortest, longest)})


def waveforms(setting: Setting) -> list[Tensor]:
    """Noise of evenly drawn lengths in a random order, `[samples]` each, the same for the same seed."""
    generator = torch.Generator().manual_seed(setting.seed)
    shortest, longest = (round(seconds * _RATE) for seconds in setting.seconds)
    lengths = torch.randint(shortest, longest + 1, (setting.waveforms,), generator=generator).tolist()
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def contenders(setting: Setting, folder: Path) -> tuple[dict[str, Forward], Any]:
    """The three forward passes by name, with equal weights, and our upstream itself.

    Args:
        setting: device, size, seed.
        folder: where their checkpoints go.
    """
    import transformers

    torch.manual_seed(setting.seed)
    config = transformers.HubertConfig(**SIZES[setting.size])
    transformers.HubertModel(config).save_pretrained(folder / "hf")
    (folder / "hf" / "preprocessor_config.json").write_text('{"do_normalize": false}\n', encoding="utf-8")
    native = convert(folder / "hf", folder / "hubert.pt", "s3prl")
    device = torch.device(setting.device)
    ours = load_upstream(folder / "hf").to(device)
    plain: Any = transformers.HubertModel.from_pretrained(folder / "hf").eval()
    plain.to(device)
    with quiet(folder / "s3prl.log"):
        compat.install()
        import s3prl.hub

        theirs = s3prl.hub.hubert_custom(str(native)).to(device).eval()

    def transformers_forward(waves: Sequence[Tensor]) -> Sequence[Tensor]:
        padded = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
        lengths = torch.tensor([len(wave) for wave in waves], device=device)
        mask = torch.arange(padded.shape[1], device=device)[None, :] < lengths[:, None]
        return plain(padded, attention_mask=mask.long(), output_hidden_states=True).hidden_states

    forwards: dict[str, Forward] = {
        "speechft": lambda waves: ours(waves).states,
        "s3prl": lambda waves: theirs(list(waves))["hidden_states"],
        "transformers": transformers_forward,
    }
    return forwards, ours


def differences(forwards: dict[str, Forward], wave: Tensor) -> dict[str, float]:
    """The largest absolute difference of any hidden state of one waveform to ours, in float32.

    Raises:
        SpeechFTError: they do not compute the same.
    """
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        states = {name: forward([wave]) for name, forward in forwards.items()}
    ours = states.pop("speechft")
    found = {}
    for name, theirs in states.items():
        if len(theirs) != len(ours) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
            raise SpeechFTError(f"{name} gives hidden states of other shapes", "this comparison would mean nothing")
        found[name] = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
        if not found[name] <= _TOLERANCE:
            raise SpeechFTError(
                f"the hidden states differ from {name}'s by up to {found[name]:.2g}", "this comparison is void"
            )
    return found


def batches(setting: Setting, lengths: Sequence[int]) -> dict[str, list[list[int]]]:
    """Positions of the waveforms in each batch, by contender."""
    given = [
        list(range(start, min(start + setting.batch, len(lengths)))) for start in range(0, len(lengths), setting.batch)
    ]
    # A batch of theirs may hold the longest waveform, so this many seconds of padded audio cost no more memory.
    bucketed = batches_by_seconds(lengths, setting.batch * max(lengths) / _RATE)
    return {"speechft": bucketed, "s3prl": given, "transformers": given}


def measure(setting: Setting) -> dict[str, Any]:
    """Run the comparison.

    Returns:
        Every figure, as the last line of `scripts/bench forward` has it: ratios are medians of ours over theirs, in
        audio seconds a second.

    Raises:
        SpeechFTError: the three do not compute the same.
    """
    before = torch.get_num_threads()
    if setting.threads:
        torch.set_num_threads(setting.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="speechft-bench-") as folder:
            return _measure(setting, Path(folder))
    finally:
        torch.set_num_threads(before)


def _measure(setting: Setting, folder: Path) -> dict[str, Any]:
    device = torch.device(setting.device)
    say("making three models of the same weights")
    forwards, ours = contenders(setting, folder)
    waves = [wave.to(device) for wave in waveforms(setting)]
    lengths = [len(wave) for wave in waves]
    differ = differences(forwards, min(waves, key=len))
    plans = batches(setting, lengths)
    numerics = Numerics(setting.precision, setting.compile)
    seconds: dict[str, list[float]] = {name: [] for name in forwards}

    def once(name: str, plan: list[list[int]]) -> float:
        _wait(device)
        began = time.perf_counter()
        with torch.inference_mode(), numerics.autocast(device):
            for batch in plan:
                forwards[name]([waves[position] for position in batch])
        _wait(device)
        return time.perf_counter() - began

    with numerics.compiled(ours):
        for name, plan in plans.items():  # a GPU and a compiler settle on every shape; a CPU needs only to be warm
            once(name, plan if device.type != "cpu" or (setting.compile and name == "speechft") else plan[:1])
        for repetition in range(setting.repetitions):
            for name in _rotated(list(forwards), repetition):
                seconds[name].append(once(name, plans[name]))
                say(f"{repetition + 1}/{setting.repetitions} {name}: {seconds[name][-1]:.2f} s")
    audio = sum(lengths) / _RATE
    rates = {name: audio / statistics.median(times) for name, times in seconds.items()}
    padded = {
        name: sum(len(batch) * max(lengths[position] for position in batch) for batch in plan) / _RATE
        for name, plan in plans.items()
    }
    return {
        "bench": "forward",
        "ratio_to_s3prl": rates["speechft"] / rates["s3prl"],
        "ratio_to_transformers": rates["speechft"] / rates["transformers"],
        "audio_seconds_per_second": rates,
        "seconds_measured": seconds,
        "audio_seconds": audio,
        "padded_seconds": padded,
        "largest_difference": differ,
        **asdict(setting),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPUs",
        "threads": setting.threads or torch.get_num_threads(),
        "versions": versions(),
    }


def _rotated(names: list[str], by: int) -> list[str]:
    """Another one goes first each time, so that none is always measured after the same one."""
    return names[by % len(names) :] + names[: by % len(names)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(record: dict[str, Any]) -> list[str]:
    """The figures for people, as Markdown."""
    rates, first = record["audio_seconds_per_second"], record["audio_seconds_per_second"]["speechft"]
    shape = f"{record['waveforms']} waveforms, {record['audio_seconds']:.0f} s in all, batches of {record['batch']}"
    where = f"{record['device_name']}, {record['threads']} threads, precision {record['precision']}"
    lines = [f"HuBERT {record['size']} with random weights; {shape}; {where}{', compiled' * record['compile']}"]
    lines += [
        "",
        "| | audio seconds a second | speechft by it | padded seconds | difference |",
        "|---|---|---|---|---|",
    ]
    for name, rate in rates.items():
        difference = record["largest_difference"].get(name)
        shown = "" if difference is None else f"{difference:.1e}"
        lines.append(f"| {name} | {rate:.2f} | {first / rate:.2f} | {record['padded_seconds'][name]:.0f} | {shown} |")
    return [*lines, ""]
