"""A run's configuration with other data: corpora that have moved, or a dev set it had not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechft.errors import UsageError

_MAY_CHANGE = ("data.", "task.lexicon", "trainer.device", "trainer.threads")


def changed(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration with `key=value` words applied; values are YAML.

    Raises:
        UsageError: a key that the run's head and upstream depend on, or a malformed value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for word in overrides:
        if not word.startswith(_MAY_CHANGE):
            raise UsageError(
                f"{word.partition('=')[0]} is fixed by the run", f"only {', '.join(_MAY_CHANGE)} may be changed"
            )
    try:
        merged = OmegaConf.merge(dict(config), OmegaConf.from_dotlist(list(overrides)))
        container = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"the settings cannot be read: {str(error).splitlines()[0]}", "they are key=value") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
