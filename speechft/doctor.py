"""What is installed, what is missing, which tasks can run, where data was found."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speechft.config.locate import config_dir
from speechft.files import cache_dir
from speechft.runs import runs_root
from speechft.versions import installed

REQUIRED = {  # distribution -> what it is for
    "torch": "everything",
    "torchaudio": "resampling, s3prl",
    "transformers": "the upstreams",
    "hydra-core": "configurations",
    "lhotse": "corpora and batches",
    "accelerate": "precision, several GPUs",
    "safetensors": "checkpoints",
    "soundfile": "reading audio",
    "jiwer": "error rates",
    "scikit-learn": "k-means of masked prediction",
    "s3prl": "SUPERB",
    "tensorboardX": "s3prl",
    "pandas": "s3prl",
    "editdistance": "PR",
    "librosa": "SID",
    "h5py": "s3prl",
    "joblib": "s3prl",
    "sox": "s3prl",
    "matplotlib": "plots",
    "rich": "progress",
}
OPTIONAL = {
    "espeakng-loader": ("demo", "the synthetic corpus and the demo"),
    "onnxruntime": ("onnx", "pre-training targets from an ONNX network"),
    "datasets": ("datasets", "Hugging Face data sets"),
    "dtw-python": ("qbe", "SUPERB's QbE"),
    "lxml": ("qbe", "SUPERB's QbE"),
    "pesq": ("enhancement", "SE of SUPERB-SG"),
    "pystoi": ("enhancement", "SE of SUPERB-SG"),
}


@dataclass
class Report:
    """What `speechft doctor` found."""

    healthy: bool
    packages: dict[str, str | None]
    optional: dict[str, str | None]
    machine: dict[str, Any]
    folders: dict[str, Any]
    tasks: dict[str, list[str]]
    data: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.__dataclass_fields__}

    def lines(self) -> list[str]:
        text = [f"speechft {installed('speechft') or '(not installed)'}, Python {self.machine['python']}"]
        gpus = ", ".join(self.machine["gpu_names"]) or "no GPU"
        text.append(f"machine: {self.machine['cpus']} CPUs, {gpus}")
        text += [f"{name}: {path['path']} ({path['free_gb']:.0f} GB free)" for name, path in self.folders.items()]
        text += [f"  {name} {version or 'MISSING'}" for name, version in self.packages.items()]
        for name, version in self.optional.items():
            extra, use = OPTIONAL[name]
            advice = f"not installed (for {use}: pip install 'speechft[{extra}]')"
            text.append(f"  {name} {version or advice}")
        text += [f"data: {key} in {path}" for key, path in self.data.items()]
        text.append("SUPERB tasks:")
        for task, missing in self.tasks.items():
            text.append(f"  {task}: " + ("ready" if not missing else "; ".join(missing)))
        return [*text, *(f"problem: {problem}" for problem in self.problems)]


def examine(overrides: Sequence[str] = ()) -> Report:
    """Look at this installation.

    Args:
        overrides: of `configs/eval.yaml`; `data.librispeech=/data` and such say where to look for corpora.
    """
    packages = {name: installed(name) for name in REQUIRED}
    problems = [
        f"{name} is not installed (needed for {REQUIRED[name]}); pip install speechft"
        for name, v in packages.items()
        if not v
    ]
    machine: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": 0,
        "gpu_names": [],
    }
    if find_spec("torch"):
        problems += _look_at_torch(machine)
    tasks: Mapping[str, list[str]] = {}
    found: dict[str, str] = {}
    if find_spec("omegaconf"):
        from speechft.superb.settings import compose
        from speechft.superb.tasks import NAMES, get_task

        data = compose(overrides)["data"]
        synthetic = data.pop("synthetic", None)
        if synthetic:
            data, problem, tasks = _look_at_synthetic(str(synthetic), data)
            problems += problem
        found = {
            key: str(value)
            for key, value in data.items()
            if "/" in str(value) and Path(str(value)).expanduser().exists()
        }
        tasks = tasks or {name: get_task(name).missing(data) for name in NAMES}
    places = {"cache": cache_dir(), "runs": runs_root(), "configurations": config_dir()}
    folders = {name: _space(path) for name, path in places.items()}
    optional = {name: installed(name) for name in OPTIONAL}
    return Report(not problems, packages, optional, machine, folders, dict(tasks), found, problems)


def _look_at_synthetic(size: str, data: dict[str, Any]) -> tuple[dict[str, Any], list[str], dict[str, list[str]]]:
    """The corpus's paths where it has been made; otherwise whether it can be, and which tasks it will have."""
    from speechft.data.synthetic.corpus import SyntheticCorpus, corpus_folder
    from speechft.data.synthetic.sizes import size_named

    amounts = size_named(size)
    folder = corpus_folder(amounts)
    if (folder / "corpus.json").is_file():
        corpus = SyntheticCorpus.open(folder)
        own = {key: getattr(corpus, key, None) for key in data}
        return {key: data[key] if own[key] is None else str(own[key]) for key in data}, [], {}
    if not installed("espeakng-loader"):
        return data, ["the synthetic corpus needs espeakng-loader; pip install 'speechft[demo]'"], {}
    parts = {
        "pr": amounts.test_clean, "asr": amounts.test_clean, "sid": amounts.sid_speakers, "ks": amounts.keyword_train,
    }  # fmt: skip
    return data, [], {task: [] if part else [f"the size {size} has no {task} part"] for task, part in parts.items()}


def _look_at_torch(machine: dict[str, Any]) -> list[str]:
    try:
        import torch
        import torchaudio  # noqa: F401  it does not load beside a torch of another build
    except (ImportError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [f"torch and torchaudio do not load together ({first}); install the same version of both"]
    machine["gpus"] = torch.cuda.device_count()
    machine["gpu_names"] = [torch.cuda.get_device_name(index) for index in range(machine["gpus"])]
    return []


def _space(path: Any) -> dict[str, Any]:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return {"path": str(path), "free_gb": shutil.disk_usage(existing).free / 1e9}
