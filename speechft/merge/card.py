"""The model card of a merged upstream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft.checkpoints.loading import how_to_load, library

_TORCHAUDIO = """
By itself, `s3prl.hub` of s3prl 0.4.18 needs torchaudio 2.8 or earlier: later ones lack `set_audio_backend` and
`sox_effects`, which it calls when it is imported. Inside speechft nothing is needed.
"""


def merged_card(record: Mapping[str, Any]) -> str:
    """`README.md` of a merged folder, from its `merge.json`."""
    parents = "\n".join(f"| {p['role']} | `{p['path']}` | `{p['sha256']}` |" for p in record["parents"])
    family, entry = record["family"], record.get("s3prl_hub")
    how = [f"`{name}` {_shown(value)}" for name, value in {**record["parameters"], **_choices(record)}.items()]
    settings = f"\nParameters: {', '.join(how)}.\n" if how else ""
    native = f'\nPlain s3prl loads `s3prl.pt`: `s3prl.hub.{entry}("s3prl.pt")`.\n{_TORCHAUDIO}' if entry else ""
    head = record.get("pretraining_head")
    kept = f"""
The head of the pre-training is the pre-trained model's: `transformers.{head}.from_pretrained` loads both; to others its
tensors are not used, which `AutoModel` says.
""" if head else ""  # fmt: skip
    applied = (
        "α times it" if record["method"] == "linear" and not record["choices"] else "what the method and α leave of it"
    )
    made = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""---
library_name: {library(family)}
tags: [speech, speechft, merge]
---
# Merged speech upstream, α = {record["alpha"]:g}

Method `{record["method"]}` ({record["paper"]}): θ̂ = {record["formula"]}. α is {record["alpha_means"]}.
{settings}
| parent | path | sha256 of its weights |
|---|---|---|
{parents}

The update is {100 * record["update"]["relative"]:.2f} % of the pre-trained weights' norm; {applied},
{100 * record["applied"]["relative"]:.2f} % of that norm, was applied. Weights sha256
`{record["sha256"]}`; everything else is in `merge.json`.

{how_to_load(family)}{kept}{native}
Made with {made}.
"""


def _choices(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen; files by their names, where hashes say which they were."""
    found = dict(record["choices"])
    for key in ("statistics", "statistics_sha256"):
        if key in found:
            found[key] = [f"`{Path(one).name}`" for one in found[key]]
    return found


def _shown(value: Any) -> str:
    """A setting's value in a sentence."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one:g}" for name, one in value.items())
    if isinstance(value, list):
        return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return "equal" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()
