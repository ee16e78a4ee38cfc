"""What a merge of two models of HuBERT's size takes: seconds, memory, bytes a second beside a plain copy.

| | |
|---|---|
| copy | one parent's `model.safetensors`, copied |
| speechft | `speechft merge`, without and with reloading and running the result |
| published | the published script's way: everything loaded, one dictionary merged, `torch.save` |
| mergekit | its `linear`, in the environment whose python `--mergekit` names |

Each in a process of its own, in turns, the parents in the system's file cache for all (`--cold`: for none, as on the
first use of files or where memory is short), the result flushed to the disk.
Bytes are those of the weights read and written: two models and one for a merge, one and one for the copy.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechft.bench import merge_sides
from speechft.bench.counts import check_counts
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.versions import versions

SIZES: dict[str, dict[str, Any]] = {
    "base": {},  # HubertConfig's own values
    "large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True,
    },
    "tiny": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    },
}  # fmt: skip
_ALPHA = 0.25
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Setting:
    """What is measured; every field is an option of the command."""

    size: str = "base"
    repetitions: int = 3
    mergekit: str | None = None
    folder: str | None = None
    threads: int | None = None
    cold: bool = False
    seed: int = 0

    @classmethod
    def read(cls, arguments: Namespace) -> Setting:
        """From the command line.

        Raises:
            UsageError: a value that makes no sense.
        """
        check_counts(arguments, ("repetitions", "threads"))
        if arguments.size not in SIZES:
            raise UsageError(f"unknown --size {arguments.size!r}", f"known: {', '.join(SIZES)}")
        if arguments.cold and not hasattr(os, "posix_fadvise"):
            raise UsageError("--cold needs a system that can be told to forget files", "leave it out")
        if arguments.mergekit and not Path(arguments.mergekit).is_file():
            raise UsageError(f"--mergekit {arguments.mergekit} is no file", "give the python of its environment")
        return cls(**{name: getattr(arguments, name) for name in cls.__dataclass_fields__})


def make_parents(setting: Setting, folder: Path) -> tuple[Path, Path]:
    """θ0 with random weights and a θ' near it, as folders with both kinds of weights file."""
    import torch
    import transformers

    torch.manual_seed(setting.seed)
    model = transformers.HubertModel(transformers.HubertConfig(**SIZES[setting.size]))
    base, tuned = folder / "pretrained", folder / "finetuned"
    for path in (base, tuned):
        if path == tuned:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
        model.save_pretrained(path)
        torch.save(model.state_dict(), path / "pytorch_model.bin")
        (path / "preprocessor_config.json").write_text('{"do_normalize": false}\n', encoding="utf-8")
    return base, tuned


def measure(setting: Setting) -> dict[str, Any]:
    """Run the comparison.

    Returns:
        Every figure, as the last line of `scripts/bench merge` has it; `ratio` is bytes a second by the copy's.

    Raises:
        SpeechFTError: a side failed, or two sides' weights differ.
    """
    with tempfile.TemporaryDirectory(prefix="speechft-bench-", dir=setting.folder) as folder:
        return _measure(setting, Path(folder))


def _measure(setting: Setting, folder: Path) -> dict[str, Any]:
    say(f"making two models of the size {setting.size}")
    base, tuned = make_parents(setting, folder)
    weights = (base / "model.safetensors").stat().st_size
    pythons = dict.fromkeys(("copy", "ours", "ours_checked", "published"), sys.executable)
    skipped = {}
    reason = _no_mergekit(setting.mergekit)
    if reason:
        skipped["mergekit"] = reason
    else:
        pythons["mergekit"] = str(setting.mergekit)
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    differ: dict[str, float] = {}
    names = list(pythons)
    for repetition in range(setting.repetitions):
        for name in names[repetition % len(names) :] + names[: repetition % len(names)]:
            out = folder / f"{name}-out"
            if setting.cold:
                forget(base, tuned)
            taken[name].append(_run(pythons[name], name, base, tuned, out, setting.threads))
            if name != "copy":
                differ[name] = _difference(base, tuned, out)
            shutil.rmtree(out)
            say(f"{repetition + 1}/{setting.repetitions} {name}: {taken[name][-1]['seconds']:.2f} s")

    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in taken[name])

    speed = {name: (2 if name == "copy" else 3) * weights / median(name, "seconds") for name in taken}
    return {
        "bench": "merge",
        "ratio": speed["ours"] / speed["copy"],
        "ratio_checked": speed["ours_checked"] / speed["copy"],
        "bytes_per_second": speed,
        "seconds": {name: median(name, "seconds") for name in taken},
        "cpu_seconds": {name: median(name, "cpu_seconds") for name in taken},
        "peak_bytes": {name: int(median(name, "peak_bytes")) for name in taken},
        "peak_by_parent": {name: median(name, "peak_bytes") / weights for name in taken},
        "interpreter_bytes": {name: int(median(name, "interpreter_bytes")) for name in taken},
        "parent_bytes": weights,
        "largest_difference": differ,
        "skipped": skipped,
        "seconds_measured": {name: [one["seconds"] for one in runs] for name, runs in taken.items()},
        **asdict(setting),
        "device_name": f"{os.cpu_count()} CPUs",
        "versions": versions(),
    }


def forget(*folders: Path) -> None:
    """Take all files of these folders out of the system's file cache (Linux, BSD)."""
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # what is not yet on the disk would stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _no_mergekit(python: str | None) -> str | None:
    """Why mergekit is not measured; None where it can be."""
    if not python:
        return "no --mergekit was given"
    done = subprocess.run([python, "-c", "import mergekit.merge"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"it cannot be imported ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})"
    return None


def _run(python: str, side: str, base: Path, tuned: Path, out: Path, threads: int | None) -> dict[str, Any]:
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if side != "mergekit":
        package = str(Path(merge_sides.__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    words = [python, merge_sides.__file__, side, str(base), str(tuned), str(out), str(_ALPHA)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SpeechFTError(f"{side} failed ({last})", "run it alone: " + " ".join(words))
    record: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return record


def _difference(base: Path, tuned: Path, out: Path) -> float:
    """The largest difference to θ0 + α(θ' − θ0) in float64, over all tensors.

    Raises:
        SpeechFTError: it is no such model.
    """
    from speechft.checkpoints.folder import canonical_name
    from speechft.checkpoints.weight_files import read_tensors

    found = next((path for path in sorted(out.rglob("*")) if path.suffix in (".safetensors", ".bin")), None)
    if found is None:
        raise SpeechFTError(f"{out.name} holds no weights", "this comparison is void")
    merged = {canonical_name(name): tensor for name, tensor in read_tensors(found).items()}
    parents = [read_tensors(folder / "model.safetensors") for folder in (base, tuned)]
    largest = 0.0
    for name, origin in parents[0].items():
        exact = origin.double() + _ALPHA * (parents[1][name].double() - origin.double())
        if canonical_name(name) not in merged:
            raise SpeechFTError(f"{out.name} lacks {name}", "this comparison is void")
        largest = max(largest, float((merged[canonical_name(name)].double() - exact).abs().max()))
    if largest > _TOLERANCE:
        raise SpeechFTError(f"the weights of {out.name} differ by {largest:.2g}", "this comparison is void")
    return largest


def table(record: dict[str, Any]) -> list[str]:
    """The figures for people, as Markdown."""
    lines = [
        f"HuBERT {record['size']} with random weights, {record['parent_bytes'] / 1e6:.0f} MB; {record['device_name']}; "
        f"files {'read from the disk' if record['cold'] else 'in the cache'}; medians of {record['repetitions']}",
        "",
        "| | seconds | CPU seconds | MB a second | by the copy | peak MB | by a parent |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, speed in record["bytes_per_second"].items():
        lines.append(
            f"| {name} | {record['seconds'][name]:.2f} | {record['cpu_seconds'][name]:.2f} | {speed / 1e6:.0f} | "
            f"{speed / record['bytes_per_second']['copy']:.2f} | {record['peak_bytes'][name] / 1e6:.0f} | "
            f"{record['peak_by_parent'][name]:.2f} |"
        )
    return [*lines, *(f"{name} was not measured: {reason}" for name, reason in record["skipped"].items()), ""]
