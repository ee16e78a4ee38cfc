"""From the words of a command line to one resolved configuration (Hydra composes, nothing changes directory)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechft.config.locate import config_dir
from speechft.errors import UsageError

IDENTITY_FREE = ("runs", "trainer.device", "trainer.log_every", "trainer.keep", "trainer.threads", "data.workers",
                 "trainer.checkpoint_every", "allow_changed_config")  # fmt: skip
"""Keys that do not change what a run computes, so a resumed run may differ in them."""


def compose(primary: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `configs/PRIMARY.yaml` with overrides, everything resolved.

    Raises:
        UsageError: an unknown key, group or choice, or a malformed override.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if GlobalHydra.instance().is_initialized():  # inside a sweep: Hydra itself is running
            GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra_compose(primary, overrides=list(overrides))
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_one_line(error), "see configs/ for the keys and choices; +key=value adds a key") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _one_line(error: Exception) -> str:
    cause = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if cause is not None and len(lines) == 1 and "struct" not in lines[0]:
        lines += [line.strip() for line in str(cause).splitlines()[:1] if line.strip()]
    noise = ("full_key:", "object_type=", "Set the environment", "Config search path", "To append", "reference_type")
    kept = [line for line in lines if not line.startswith(noise) and "provider=" not in line]
    return ": ".join(kept[:3])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: `{"trainer": {"lr": 1}}` -> `{"trainer.lr": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a changed configuration changes: `trainer.lr: 0.0001 -> 0.001`; keys that do not matter are passed over."""
    before, after = flatten(old), flatten(new)
    changed = []
    for key in sorted(before.keys() | after.keys()):
        if key.startswith(IDENTITY_FREE):
            continue
        if before.get(key) != after.get(key):
            changed.append(f"{key}: {before.get(key)} -> {after.get(key)}")
    return changed


def write_config(path: Any, config: Mapping[str, Any]) -> None:
    """Write a configuration as YAML, whole."""
    from omegaconf import OmegaConf

    from speechft.files import write_text

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def read_config(path: Any) -> dict[str, Any]:
    """Read a configuration that `write_config` wrote."""
    from omegaconf import OmegaConf

    container = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
