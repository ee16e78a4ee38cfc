"""`configs/eval.yaml` as checked values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.errors import UsageError
from speechft.files import cache_dir, sha256_file, sha256_json
from speechft.superb.store import VERSION
from speechft.superb.tasks import UNSUPPORTED
from speechft.superb.tasks.checks import number, whole_numbers
from speechft.upstreams.numerics import FLOAT32, Numerics

ENGINES = ("fast", "s3prl")
WITHOUT_EFFECT = ("num_workers", "log_step", "save_step", "workers")  # on the result


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`configs/eval.yaml` with Hydra overrides, as a plain dictionary.

    Raises:
        UsageError: an unknown or malformed override.
    """
    from speechft.config.compose import compose as compose_any

    return compose_any("eval", overrides)


def _filled(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The paths of the corpora; `synthetic: SIZE` fills those that are not given. And the size of those it filled."""
    paths, filled = dict(data), dict[str, str]()
    size = paths.pop("synthetic", None)
    if not size:
        return paths, filled
    from speechft.data.synthetic.corpus import make_corpus
    from speechft.superb.tasks.checks import SYNTHETIC

    corpus = make_corpus(str(size))
    for key in SYNTHETIC:
        if paths.get(key) is None and getattr(corpus, key) is not None:
            paths[key], filled[key] = str(getattr(corpus, key)), str(size)
    return paths, filled


@dataclass(frozen=True)
class Settings:
    """An evaluation. Field names are those of `configs/eval.yaml`, where they are explained; `numerics` is its
    `precision` and `compile`. `device`, where heads are trained, is the first of `devices`. `synthetic` has the
    keys of `data` that the synthetic corpus fills, with its size."""

    tasks: tuple[str, ...]
    engine: str
    seed: int
    device: str
    devices: tuple[str, ...]
    out: Path
    store: Path
    budget_gb: float
    frames_dtype: str
    batch_seconds: float
    numerics: Numerics
    data: Mapping[str, Any]
    synthetic: Mapping[str, str]
    upstream: Mapping[str, Any]
    superb: Mapping[str, Mapping[str, Any]]

    def corpus(self, task: Any) -> str | None:
        """What the task is scored on, where it is not the user's files: `synthetic demo`."""
        sizes = [self.synthetic[key] for key in task.needs if key in self.synthetic]
        return f"synthetic {sizes[0]}" if sizes else None

    def splits(self, task: Any) -> dict[str, list[str]]:
        """Folders of LibriSpeech that a task takes for its training, dev and test set; empty for other corpora."""
        from speechft.superb.items import SPLITS
        from speechft.superb.tasks.text import split_names

        return {split: split_names(self.data, split) for split in SPLITS} if "librispeech" in task.needs else {}

    def lists(self, task: Any) -> dict[str, list[str]]:
        """SHA-256 of the lists that a task is given (lexicon, phones, trials, a split): key of `data` -> hashes. What
        is asked of the audio is in them, which the hash of the audio does not have."""
        keys = (*task.needs, *task.optional, *(("phones",) if "lexicon" in task.needs else ()))
        files = {key: [path for path in task.paths(self.data, key) if path.is_file()] for key in keys}
        return {key: [sha256_file(path) for path in paths] for key, paths in files.items() if paths}

    @classmethod
    def read(cls, cfg: Mapping[str, Any]) -> Settings:
        """Check a composed configuration.

        Raises:
            UsageError: a value that makes no sense.
        """
        data, synthetic = _filled(cfg.get("data") or {})
        tasks = _tasks(cfg.get("tasks"), data)
        engine, dtype = str(cfg["engine"]), str(cfg["frames_dtype"])
        if engine not in ENGINES:
            raise UsageError(f"unknown engine {engine!r}", f"known: {', '.join(ENGINES)}")
        if dtype not in ("float32", "float16"):
            raise UsageError(f"frames_dtype={dtype} is not supported", "float32 or float16")
        budget = number("budget_gb", cfg["budget_gb"])
        if cfg["batch_seconds"] is not None:
            number("batch_seconds", cfg["batch_seconds"])
        (seed,) = whole_numbers("seed", cfg["seed"], 0)
        numerics = Numerics.read(cfg["precision"], cfg["compile"])
        if engine == "s3prl" and numerics != FLOAT32:
            raise UsageError("precision and compile are for --engine fast", "s3prl's own loop computes in float32")
        if not cfg.get("out"):
            raise UsageError("no output folder", "give one with --out DIR")
        superb = {task: dict(cfg["superb"][task]) for task in tasks}
        if cfg.get("crops") is not None:
            for settings in superb.values():
                settings.update({"crops": cfg["crops"]} if "crops" in settings else {})
        for task, settings in superb.items():
            if "lr" not in settings:  # nothing is trained
                continue
            settings["lr"] = _rates(settings["lr"] if cfg.get("lr") is None else cfg["lr"], task)
        store = cfg.get("store")
        devices = resolve_devices(str(cfg["device"]), cfg.get("devices"))
        return cls(
            tasks=tasks,
            engine=engine,
            seed=seed,
            device=devices[0],
            devices=devices,
            out=Path(str(cfg["out"])).expanduser().resolve(),
            store=Path(str(store)).expanduser().resolve() if store else cache_dir() / "features",
            budget_gb=budget,
            frames_dtype=dtype,
            batch_seconds=batch_seconds_of(cfg["batch_seconds"], devices[0]),
            numerics=numerics,
            data=data,
            synthetic=synthetic,
            upstream=_conventions(cfg.get("upstream") or {}, engine),
            superb=superb,
        )

    def fingerprint(self, task: Any, upstream_key: str) -> str:
        """What a finished result must share to be taken instead of computing again.

        The user's paths count with their size and time of change, the files below a folder do not.
        """
        paths = [path for key in (*task.needs, *task.optional, "phones") for path in task.paths(self.data, key)]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]
        recipe = {key: value for key, value in self.superb[task.name].items() if key not in WITHOUT_EFFECT}
        splits = {key: value for key, value in self.data.items() if key.startswith("librispeech_")}
        dtype = self.frames_dtype if self.engine == "fast" and task.kind == "frames" else None
        upstream = upstream_key + self.numerics.key
        return sha256_json([upstream, task.name, self.engine, self.seed, recipe, splits, stats, dtype, VERSION])


def _tasks(given: Any, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The tasks that are asked for; where nothing is said, those whose files are given.

    Raises:
        UsageError: an unknown one, none, or no files.
    """
    from speechft.superb.tasks import NAMES, get_task

    if given is None:
        found = tuple(name for name in NAMES if get_task(name).given(data))
        if not found:
            raise UsageError(
                "no SUPERB task was named and no corpus given",
                "name tasks (--tasks sid,pr), or give paths (data.voxceleb1=/data/VoxCeleb1) or data.synthetic=demo",
            )
        return found
    names = given.split(",") if isinstance(given, str) else map(str, given)
    tasks = tuple(dict.fromkeys(one.strip().lower() for one in names if one.strip()))
    unknown = [task for task in tasks if task not in NAMES]
    for task in unknown:
        if task in UNSUPPORTED:
            raise UsageError(f"SUPERB task {task} is not supported: {UNSUPPORTED[task]}", f"known: {', '.join(NAMES)}")
    if unknown or not tasks:
        raise UsageError(f"unknown SUPERB task {', '.join(unknown) or '(none given)'}", f"known: {', '.join(NAMES)}")
    return tasks


def _conventions(given: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """What is asked for of all upstreams.

    Raises:
        UsageError: an unknown key; padding that depends on batches, which the fast engine makes otherwise than s3prl.
    """
    unknown = sorted(given.keys() - {"normalize", "padding"})
    if unknown:
        raise UsageError(f"unknown upstream.{unknown[0]}", "known: normalize, padding")
    if engine == "fast" and given.get("padding") not in (None, "own"):
        raise UsageError(
            f"upstream.padding={given['padding']} is about s3prl's batches, which --engine fast does not make",
            "--engine s3prl",
        )
    return {key: value for key, value in given.items() if value is not None}


def _rates(given: Any, task: str) -> list[float]:
    """One learning rate or several, each once.

    Raises:
        UsageError: none, or one that is no positive number.
    """
    try:
        rates = [float(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    except (TypeError, ValueError):
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise UsageError(f"superb.{task}.lr={given}", "give a positive number, or several: [1e-2,1e-3]")
    return list(dict.fromkeys(rates))


def batch_seconds_of(given: Any, device: str) -> float:
    """Seconds of audio in a batch of the upstream."""
    if given is not None:
        return float(given)
    return 32.0 if device == "cpu" else 60.0


def resolve_device(device: str) -> str:
    """`auto` is the GPU if there is one.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cuda", "mps"):
        raise UsageError(f"unknown device {device!r}", "known: auto, cpu, cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device={device}, but torch sees no GPU", "device=cpu")
    return device


def resolve_devices(device: str, devices: Any = None) -> tuple[str, ...]:
    """Where features are computed: `devices` if given, else `device`; `auto` is every GPU of the machine.

    Args:
        devices: a list, or names with commas between them.

    Raises:
        UsageError: as `resolve_device`; different kinds of devices, whose features are not the same to the bit.
    """
    given = devices.split(",") if isinstance(devices, str) else devices
    if given:
        found = tuple(resolve_device(str(one).strip()) for one in given)
        if len({one.partition(":")[0] for one in found}) > 1:
            raise UsageError(f"devices={','.join(found)} are of different kinds", "give several of one, cuda:0,cuda:1")
        return found
    first = resolve_device(device)
    if device != "auto" or first == "cpu":
        return (first,)
    import torch

    count = torch.cuda.device_count()
    return tuple(f"cuda:{number}" for number in range(count)) if count > 1 else (first,)
