"""The model card of a merged upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AUTO = "`transformers.AutoModel.from_pretrained(folder)` or "
_LOADERS = {
    # AutoModel would put a decoder with random weights beside it, and the encoder's under names it does not look for
    "whisper": "`transformers.models.whisper.modeling_whisper.WhisperEncoder.from_pretrained(folder)` or ",
    "decoar2": "",
    "own": "",
}
"""How transformers loads a family, where it is not `AutoModel`."""


def merged_card(record: Mapping[str, Any]) -> str:
    """`README.md` of a merged folder, from its `merge.json`."""
    parents = "\n".join(f"| {p['role']} | `{p['path']}` | `{p['sha256']}` |" for p in record["parents"])
    entry = record.get("s3prl_hub")
    how = [f"`{name}` {_shown(value)}" for name, value in {**record["parameters"], **record["choices"]}.items()]
    settings = f"\nParameters: {', '.join(how)}.\n" if how else ""
    native = f'\nPlain s3prl loads `s3prl.pt`: `s3prl.hub.{entry}("s3prl.pt")`.\n' if entry else ""
    return f"""---
library_name: {"transformers" if _LOADERS.get(record["family"], _AUTO) else "speechft"}
tags: [speech, speechft, merge]
---
# Merged speech upstream, α = {record["alpha"]:g}

Method `{record["method"]}` ({record["paper"]}): θ̂ = {record["formula"]}. α is {record["alpha_means"]}.
{settings}
| parent | path | sha256 of its weights |
|---|---|---|
{parents}

The update is {100 * record["update"]["relative"]:.2f} % of the pre-trained weights' norm; of it
{100 * record["applied"]["relative"]:.2f} % were applied. Weights sha256
`{record["sha256"]}`; everything else is in `merge.json`.

Load it with {_LOADERS.get(record["family"], _AUTO)}`speechft.load_upstream(folder)`. Input normalisation
is in `preprocessor_config.json` (`do_normalize`).
{native}"""


def _shown(value: Any) -> str:
    """A setting's value in a sentence."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one:g}" for name, one in value.items())
    if isinstance(value, list):
        return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return "equal" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()
