"""What an upstream is, and how much its conventions matter: for `speechft doctor --upstream`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from speechft.upstreams.base import Upstream
from speechft.upstreams.load import conventions, load_upstream


def describe(source: str) -> dict[str, Any]:
    """Sizes, identity, and relative changes of its features.

    Two waveforms of noise with the level and offset of quiet speech, 2.4 s and 3 s, are heard as the upstream is set,
    then with the input normalisation switched, then padded as s3prl and transformers pad. A change is the norm of the
    difference over the norm, of all hidden states together, averaged over time.

    Args:
        source: as for `load_upstream`.

    Raises:
        SpeechFTError: the checkpoint cannot be loaded.
    """
    settings = conventions(source)
    upstream = load_upstream(settings)
    generator = torch.Generator().manual_seed(0)
    waves = [0.03 * torch.randn(length, generator=generator) + 0.001 for length in (48_000, 38_400)]
    usual = _pooled(upstream, waves)
    found: dict[str, Any] = {
        **upstream.identity.as_dict(),
        "parameters": sum(parameter.numel() for parameter in upstream.parameters()),
        "hidden_states": upstream.num_layers,
        "dim": upstream.dim,
        "frames_a_second": upstream.frame_rate,
        "parts": list(upstream.parts()),
        "changes": {},
    }
    if upstream.trainable and upstream.identity.family not in ("decoar2", "whisper"):
        switched = load_upstream(settings, normalize=not upstream.identity.normalize)
        found["changes"] = {"normalize switched": _change(usual, _pooled(switched, waves))}
    paddings = (("s3prl", "s3prl"), ("huggingface", "transformers"))
    for padding, library in paddings if found["changes"] and not upstream.identity.family.startswith("own-") else ():
        if padding == "s3prl" and upstream.identity.family == "sew":
            continue
        padded = load_upstream({**settings, "padding": padding, "normalize": upstream.identity.normalize})
        masked = ", without attention mask" if padded.identity.padding.endswith("unmasked") else ""
        what = f"2.4 s padded to 3 s as {library} does{masked}"
        found["changes"][what] = _change(usual[1:], _pooled(padded, waves)[1:])
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """The description as text."""
    size = f"{found['parameters'] / 1e6:.1f} M parameters, {found['hidden_states']} hidden states of {found['dim']}"
    heard = "zero mean, unit variance" if found["normalize"] else "the waveform as it is"
    text = [
        f"{found['name']}: {found['family']}, {size}, {found['frames_a_second']:g} frames a second",
        f"from {found['source']}, sha256 {found['sha256'][:16]}",
        f"input: {heard}; padding: {found['padding']}",
    ]
    return text + [f"features change by {100 * change:.1f} %: {what}" for what, change in found["changes"].items()]


def _pooled(upstream: Upstream, waves: list[Tensor]) -> Tensor:
    """`[waves, layers, dim]`: means over the valid frames."""
    with torch.inference_mode():
        hidden = upstream(waves)
    rows = [
        torch.stack([state[row, :frames].mean(0) for state in hidden.states])
        for row, frames in enumerate(hidden.frames.tolist())
    ]
    return torch.stack(rows)


def _change(before: Tensor, after: Tensor) -> float:
    return float((after - before).norm() / before.norm())
