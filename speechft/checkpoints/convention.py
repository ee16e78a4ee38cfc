"""Whether a checkpoint hears its waveforms normalised: what travels with it, or what it was pre-trained with.

The originals (fairseq, Microsoft, ASAPP) pre-trained *base* models, whose CNN has one group norm, on waveforms as they
are (`normalize: false`), and *large* ones, with a layer norm in every convolution, on normalised ones. SUPERB's
published numbers follow that. transformers' conversions say `do_normalize: true` for nearly all
(`convert_hubert_original_pytorch_checkpoint_to_pytorch.py` and its siblings), so the file of a base model is believed
only where speechft wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechft.console import say_once

MARK = {"written_by": "speechft"}
"""In every `preprocessor_config.json` of ours: such a file says what was really done. transformers passes over it."""

_GROUP_NORM = ("hubert", "wav2vec2", "wavlm", "unispeech-sat", "sew")  # families that have base models of this kind
_RAW = ("whisper", "decoar2")  # spectrograms of the waveform as it is; no choice


def can_normalize(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of a family whose waveforms can be normalised."""
    return config.get("model_type") not in _RAW


def is_base(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of a base model: one group norm, which is also what transformers takes by default."""
    return config.get("model_type") in _GROUP_NORM and config.get("feat_extract_norm", "group") == "group"


def settled(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """A `preprocessor_config.json` whose `do_normalize` is what is done when nobody asks for another.

    Args:
        config: the content of `config.json`.
        preprocessor: as the checkpoint has it; {} for none.
    """
    if not can_normalize(config):
        return dict(preprocessor)
    says = preprocessor.get("do_normalize")
    if is_base(config) and not is_ours(preprocessor):
        says = False
    return {**preprocessor, "do_normalize": says is None or bool(says)}


def is_ours(preprocessor: Mapping[str, Any]) -> bool:
    """Whether speechft wrote this file."""
    return all(preprocessor.get(key) == value for key, value in MARK.items())


def overruled(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> bool:
    """Whether the file asks for normalised waveforms and is not followed."""
    return bool(preprocessor.get("do_normalize")) and settled(config, preprocessor).get("do_normalize") is False


def tell(source: str) -> None:
    """Say, once for each source, that a file was overruled and how to have it followed."""
    say_once(
        f"{source}: waveforms are taken as they are, as in the pre-training of base models, though its"
        " preprocessor_config.json says do_normalize: true; if it was trained with that, say upstream.normalize=true"
        f" (train, eval), or once for all: speechft convert {source} NEW --to hf --normalize true"
    )
