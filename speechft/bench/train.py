"""Stage 1 on one machine: our loop, s3prl's loop with a trainable upstream, and Hugging Face's Trainer.

All train HuBERT of the same random weights with CTC on the same clips, as many in every batch, in the same precision,
with the same dropout, without masking and layer drop, and all leave the CNN frozen. Each side is a process of its own
(`train_sides.py`), so that its peak memory is its own; the rounds are interleaved.

| | why the CNN is frozen | clips in a batch | padding |
|---|---|---|---|
| speechft | strategy `stable`, after the unfreeze | of a duration bucket | heard by nothing |
| speechft, CNN kept | the same; its output comes from the disk | the same | the same |
| s3prl | its HuBERT sets `feature_grad_mult` to 0, trainable or not | labels of similar length | in the group norm |
| transformers | `freeze_feature_encoder` | of similar length | in the group norm and in attention |

There are more clips than a round takes, so that nobody comes to the end of them, where batches are not full. Each round
draws others, so steps hold different amounts of audio: sides are compared by audio, the steps' mean stands beside.

Where a machine is shared, the time on the clock says who else was there. So the processor's own time is measured, too:
with one thread on a CPU it is what the clock would show on an idle machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechft.bench.corpora import Sizes, make
from speechft.bench.counts import check_counts
from speechft.bench.forward import SIZES
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.superb.settings import resolve_device
from speechft.upstreams.numerics import Numerics
from speechft.versions import versions

SIDES = ("speechft", "speechft_kept", "s3prl", "transformers")


@dataclass(frozen=True)
class Setting:
    """What is measured; every field is an option of the command."""

    device: str = "cpu"
    precision: str = "no"
    seconds: float = 2.0
    clips: int = 64
    batch: int = 4
    steps: int = 6
    repetitions: int = 3
    workers: int = 0
    threads: int | None = None
    seed: int = 0
    size: str = "base"

    @classmethod
    def read(cls, arguments: Namespace) -> Setting:
        """From the command line.

        Raises:
            UsageError: a value that makes no sense.
        """
        check_counts(arguments, ("clips", "batch", "steps", "repetitions", "threads"))
        if arguments.workers < 0:
            raise UsageError(f"--workers is {arguments.workers}", "give a whole number of at least 0")
        if not arguments.seconds >= 0.5:
            raise UsageError(f"--seconds is {arguments.seconds:g}", "give at least 0.5")
        taken = arguments.batch * (arguments.steps + 2)  # a step before those that are timed, and one after
        if arguments.clips is None:
            arguments.clips = 2 * taken
        if arguments.clips < 1.5 * taken:
            raise UsageError(
                f"--clips {arguments.clips} is too few for {arguments.steps} steps of full batches",
                f"give at least {-(-3 * taken // 2)}, or leave it out",
            )
        if arguments.size not in SIZES:
            raise UsageError(f"unknown --size {arguments.size!r}", f"known: {', '.join(SIZES)}")
        Numerics.read(arguments.precision, False)
        values = {name: getattr(arguments, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, "device": resolve_device(arguments.device)})


class Side:
    """One side's process: it answers a line on its stdin with a line of JSON."""

    def __init__(self, name: str, setting: Setting, data: dict[str, str], folder: Path) -> None:
        self.name = name
        task = json.dumps({"side": name, "setting": asdict(setting), "data": data, "folder": str(folder / name)})
        self.log = (folder / f"{name}.log").open("w+", encoding="utf-8")
        environment = {**os.environ, "SPEECHFT_CACHE": str(folder / "cache")}
        if setting.threads:
            environment["OMP_NUM_THREADS"] = str(setting.threads)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "speechft.bench.train_sides", task], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True, env=environment,
        )  # fmt: skip

    def ask(self, what: str) -> dict[str, Any]:
        """`round` or `profile`.

        Raises:
            SpeechFTError: the process has died.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            self.process.wait()
            self.log.seek(0)
            last = (self.log.read().strip().splitlines() or ["without a word"])[-1]
            raise SpeechFTError(f"{self.name} has stopped: {last}", "see --help for smaller settings") from error
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.log.close()


def measure(setting: Setting) -> dict[str, Any]:
    """Run the comparison.

    Returns:
        Every figure, as the last line of `scripts/bench train` has it: rates and ratios are medians over the rounds.

    Raises:
        SpeechFTError: a side failed.
    """
    with tempfile.TemporaryDirectory(prefix="speechft-bench-") as name:
        folder = Path(name)
        _save_model(setting, folder / "hf")
        sizes = Sizes(words=1, speakers=4, sentences=setting.clips, evaluated=1, sentence_seconds=setting.seconds,
                      noise_seconds=1.0)  # fmt: skip
        data = {**make(folder, sizes, setting.seed), "model": str(folder / "hf")}
        sides: list[Side] = []
        try:
            for one in SIDES:
                sides.append(Side(one, setting, data, folder))
                sides[-1].ask("round")  # warms up: libraries, caches, the kept CNN
                say(f"{one} is ready")
            load_before = os.getloadavg()[0]
            rounds: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
            for repetition in range(setting.repetitions):
                by = repetition % len(sides)  # another one goes first each time
                for side in sides[by:] + sides[:by]:
                    rounds[side.name].append(side.ask("round"))
                    say(f"{repetition + 1}/{setting.repetitions} {side.name}: "
                        f"{rounds[side.name][-1]['seconds']:.1f} s for {setting.steps} steps")  # fmt: skip
            profiles = {side.name: side.ask("profile") for side in sides[:2]}
        finally:
            for side in sides:
                side.close()
    return record(setting, rounds, profiles, [load_before, os.getloadavg()[0]])


def record(
    setting: Setting, rounds: dict[str, list[dict[str, Any]]], profiles: dict[str, Any], load: list[float]
) -> dict[str, Any]:
    """The figures of all rounds as one object.

    Args:
        setting: what was measured.
        rounds: of each side: `seconds`, `cpu_seconds`, `audio_seconds` of `steps` steps, `peak_bytes`.
        profiles: of both of ours: seconds by part.
        load: of the machine, before and after.
    """

    def rates(key: str) -> dict[str, float]:
        return {side: statistics.median(one["audio_seconds"] / one[key] for one in own) for side, own in rounds.items()}

    clock, processor = rates("seconds"), rates("cpu_seconds")
    value: dict[str, Any] = {"bench": "train"}
    for suffix, found in (("", clock), ("_cpu_time", processor)):
        best = max(found["s3prl"], found["transformers"])
        value[f"ratio{suffix}"] = found["speechft"] / best
        value[f"ratio_kept{suffix}"] = found["speechft_kept"] / best
    return {
        **value,
        "audio_seconds_per_second": clock,
        "audio_seconds_per_cpu_second": processor,
        "audio_seconds_per_step": {
            side: sum(one["audio_seconds"] for one in own) / setting.steps / len(own) for side, own in rounds.items()
        },
        "steps_per_second": {
            side: statistics.median(setting.steps / one["seconds"] for one in own) for side, own in rounds.items()
        },
        "peak_gb": {side: max(one["peak_bytes"] for one in own) / 1e9 for side, own in rounds.items()},
        "rounds": rounds,
        "profile": profiles,
        "load_average": load,
        **asdict(setting),
        "device_name": _device_name(setting.device),
        "versions": versions(),
    }


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"{os.cpu_count()} CPUs"


def _save_model(setting: Setting, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(setting.seed)
    transformers.HubertModel(transformers.HubertConfig(**SIZES[setting.size])).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}\n', encoding="utf-8")


def table(record: dict[str, Any]) -> list[str]:
    """The figures for people, as Markdown."""
    lines = [
        f"HuBERT {record['size']} with random weights, CTC on {record['clips']} clips of {record['seconds']:g} s on "
        f"average, {record['batch']} in a batch; {record['device_name']}, precision {record['precision']}; "
        f"load of the machine {record['load_average'][0]:.1f} to {record['load_average'][1]:.1f}",
        "",
        "| | steps a second | audio seconds a step | audio seconds a second | a CPU second | peak GB |",
        "|---|---|---|---|---|---|",
    ]
    for side, rate in record["audio_seconds_per_second"].items():
        cells = [
            side.replace("_", ", CNN "), f"{record['steps_per_second'][side]:.3f}",
            f"{record['audio_seconds_per_step'][side]:.1f}", f"{rate:.2f}",
            f"{record['audio_seconds_per_cpu_second'][side]:.2f}", f"{record['peak_gb'][side]:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"speechft by the better of the two: {record['ratio']:.2f}, with the CNN kept {record['ratio_kept']:.2f}; "
        f"in the processor's own time {record['ratio_cpu_time']:.2f} and {record['ratio_kept_cpu_time']:.2f}",
    ]
    for side, parts in record["profile"].items():
        whole = sum(parts.values())
        shares = ", ".join(f"{part} {100 * seconds / whole:.0f} %" for part, seconds in parts.items())
        lines.append(f"what the time of {side.replace('_', ', CNN ')} goes to: {shares}")
    return [*lines, ""]
