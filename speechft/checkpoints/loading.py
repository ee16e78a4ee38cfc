"""How a folder of a family's weights is loaded from outside: what a model card tells its reader."""

from __future__ import annotations

from typing import Any

_AUTO = "`transformers.AutoModel.from_pretrained(folder)` or "
_LOADERS = {
    # AutoModel would put a decoder with random weights beside it, and the encoder's under names it does not look for
    "whisper": "`transformers.models.whisper.modeling_whisper.WhisperEncoder.from_pretrained(folder)` or ",
    "decoar2": "",
    "own": "",
}
"""How transformers loads a family, where it is not `AutoModel`."""
_NO_AUTO = """
`AutoModel` is not the way: it makes a whole Whisper of random weights and says so in a warning only.
"""


def library(family: Any) -> str:
    """Whose loader opens a folder of this family: `transformers`, or `speechft` alone."""
    return "transformers" if _LOADERS.get(str(family), _AUTO) else "speechft"


def how_to_load(family: Any) -> str:
    """The card's paragraph about it, for a folder of this `model_type`."""
    loaders = f"{_LOADERS.get(str(family), _AUTO)}`speechft.load_upstream(folder)`"
    return (
        f"Load it with {loaders}. Input normalisation\nis in `preprocessor_config.json` (`do_normalize`).\n"
        f"{_NO_AUTO if family == 'whisper' else ''}"
    )
