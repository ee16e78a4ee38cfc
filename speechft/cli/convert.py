"""`speechft convert`: checkpoint formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechft.cli.arguments import Parser, check_overrides, result
from speechft.own import in_file

_EPILOG = """examples:
  speechft convert hubert_base_ls960.pt hubert_base/ --to hf
  speechft convert runs/latest/merged/alpha-0.25 merged.pt --to s3prl
  speechft convert my_upstream.py:MyUpstream mine/ --to hf --weights my.pt --set dim=64

IN is a Hugging Face folder, a hub name, a known name, or a .pt file of HuBERT, wav2vec 2.0, WavLM or DeCoAR 2.0
(s3prl's converted ones, fairseq's, Microsoft's). s3prl.hub loads what --to s3prl writes: hubert_custom,
wav2vec2_custom, wavlm_local, unispeech_sat_local, decoar2_custom.

Base models hear waveforms as they are and large ones normalised, as they were pre-trained, whatever the
preprocessor_config.json of a folder from elsewhere says; --normalize true is for one that was trained otherwise.

An architecture of your own (docs/own_upstream.md) becomes a folder that train, merge, eval and analyze take."""


def run(words: Sequence[str]) -> int:
    parser = Parser("convert", "Write a checkpoint in another format.", _EPILOG)
    parser.add_argument("source", metavar="IN", help="the checkpoint")
    parser.add_argument("out", metavar="OUT", help="a folder (hf) or a .pt file (s3prl)")
    parser.add_argument("--to", choices=("hf", "s3prl"), required=True, help="the format")
    parser.add_argument(
        "--normalize", choices=("true", "false"), help="what the model hears (default: its own convention, see above)"
    )
    own = parser.add_argument_group("of an architecture of your own")
    own.add_argument("--weights", metavar="FILE", help="its weights; without, as the class makes them")
    own.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="its options")
    arguments = parser.parse_args(list(words))

    from speechft.checkpoints.convert import convert
    from speechft.upstreams.load import conventions, locate

    source, given = arguments.source, None if arguments.normalize is None else arguments.normalize == "true"
    if arguments.weights or arguments.set or in_file(source):
        from speechft.upstreams.own import folder_of

        source, normalize = str(folder_of(source, arguments.weights, options_of(arguments.set), bool(given))), None
    else:
        # a published model's own convention, not the hub's file
        normalize = conventions(source).get("normalize") if given is None else given
    written = convert(locate(source), Path(arguments.out).expanduser(), arguments.to, normalize)
    result(arguments.json, {"out": str(written), "to": arguments.to}, [str(written)])
    return 0


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """`dim=64 causal=true` with values as YAML has them."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.from_dotlist(check_overrides(list(words))))
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}
