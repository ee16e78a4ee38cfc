"""Where the configurations are: `configs/` of a source tree, or `speechft/configs` of an installed wheel."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from speechft.errors import UsageError


@lru_cache(maxsize=1)
def config_dir() -> Path:
    """The folder that holds `train.yaml`, `eval.yaml` and a folder per Hydra group."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise UsageError("the configuration files are missing from this installation", "install speechft again")


def group_names(group: str) -> list[str]:
    """The choices of a Hydra group, sorted: `group_names("upstream")` -> `["fbank", "hubert_base", ...]`; a file whose
    name begins with `_` is what choices have in common."""
    return sorted(path.stem for path in (config_dir() / group).glob("[!_]*.yaml"))


def read_group(group: str, name: str) -> dict[str, Any]:
    """One choice of a group as a plain dictionary, without composing a whole configuration.

    Raises:
        UsageError: no such choice; the message lists the known ones.
    """
    from omegaconf import OmegaConf

    path = config_dir() / group / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(group_names(group))
        raise UsageError(f"unknown {group} {name!r}", f"known: {known}")
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}
