"""A run's folder: where everything of one run is, and which run is the latest."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from speechft.console import say
from speechft.errors import UsageError


@dataclass(frozen=True)
class Run:
    """The folder of one run and the names in it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def sequence(self) -> Path:
        """The configuration of a sequence of tasks whose parts are still being trained."""
        return self.folder / "sequence.yaml"

    @property
    def pretrained(self) -> Path:
        return self.folder / "pretrained.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        return self.folder / ".training"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def finetuned(self) -> Path:
        return self.folder / "finetuned"

    @property
    def merged(self) -> Path:
        return self.folder / "merged"

    @property
    def superb(self) -> Path:
        return self.folder / "superb"

    @property
    def finished(self) -> bool:
        """Whether stage 1 has written its result."""
        return (self.finetuned / "model.safetensors").is_file()

    def merged_models(self) -> list[Path]:
        """The folders that stage 2 wrote, sorted by name."""
        return sorted(
            path.parent for path in self.merged.glob("*/model.safetensors") if not path.parent.name.startswith(".")
        )


def runs_root() -> Path:
    """`runs/` in the present folder, or `$SPEECHFT_RUNS`."""
    return Path(os.environ.get("SPEECHFT_RUNS", "runs")).expanduser().resolve()


def choose_folder(out: str | None, name: str) -> Path:
    """The folder of a new run: `out`, or a dated name under `runs/`."""
    if out:
        return Path(out).expanduser().resolve()
    now = datetime.now()
    while True:
        # With the process, too: commands that a shell starts in the same second, one a GPU, are runs of their own.
        folder = runs_root() / f"{name}-{now.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        if not folder.exists():  # runs of one process may begin and end within a second, and containers share numbers
            return folder
        now += timedelta(seconds=1)


def dated_folders(name: str) -> list[Path]:
    """Folders under `runs/` that `choose_folder` has named so, the newest first."""
    pattern = re.compile(re.escape(name) + r"-\d{8}-\d{6}-\d+")
    root = runs_root()
    found = [path for path in root.iterdir() if pattern.fullmatch(path.name)] if root.is_dir() else []
    return sorted(found, key=lambda path: path.name.rsplit("-", 3)[1:3], reverse=True)


def set_latest(folder: Path) -> None:
    """Point `runs/latest` at a run, when the run lives under `runs/`; otherwise write down its path there."""
    root = runs_root()
    link, temporary = root / "latest", root / f".latest-{os.getpid()}"
    target = os.path.relpath(folder, root) if folder.is_relative_to(root) else str(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as error:  # the run, which is elsewhere, need not fail for it
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        say(f"{link} does not point to {folder} ({error.strerror}): name the run in the commands after this one")


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / "config.yaml").is_file() and (path / "pretrained.json").is_file()


def runs_in(folder: Path) -> str:
    """Of a sweep's folder, which runs are in it: what to say instead."""
    found = sorted((one for one in folder.glob("*") if is_run(one)), key=lambda one: (len(one.name), one.name))
    shown = ", ".join(map(str, found[:4])) + (" ..." if len(found) > 4 else "")
    return f"it holds runs, name one of them: {shown}" if found else ""


def find_run(path: str | Path | None) -> Run:
    """The run at a path, or the latest one.

    Raises:
        UsageError: there is none.
    """
    if path is None:
        latest = runs_root() / "latest"
        if not latest.exists():
            raise UsageError(f"there is no latest run in {runs_root()}", "name a run, or train first: speechft train")
        path = latest
    folder = Path(path).expanduser().resolve()
    if not is_run(folder):
        inside = folder.parent if folder.name == "finetuned" and is_run(folder.parent) else None
        hint = f"name the run: {inside}" if inside else "a run has config.yaml and pretrained.json; see speechft train"
        raise UsageError(f"{path} is no run's folder", runs_in(folder) or hint)
    return Run(folder)
