"""`speechft convert`: checkpoint formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechft.cli.arguments import Parser, result

_EPILOG = """examples:
  speechft convert hubert_base_ls960.pt hubert_base/ --to hf
  speechft convert runs/latest/merged/alpha-0.25 merged.pt --to s3prl

IN is a Hugging Face folder, a hub name, a known name, or a .pt file of HuBERT, wav2vec 2.0, WavLM or DeCoAR 2.0
(s3prl's converted ones, fairseq's, Microsoft's). s3prl.hub loads what --to s3prl writes: hubert_custom,
wav2vec2_custom, wavlm_local, unispeech_sat_local, decoar2_custom.

Base models hear waveforms as they are and large ones normalised, as they were pre-trained, whatever the
preprocessor_config.json of a folder from elsewhere says; --normalize true is for one that was trained otherwise."""


def run(words: Sequence[str]) -> int:
    parser = Parser("convert", "Write a checkpoint in another format.", _EPILOG)
    parser.add_argument("source", metavar="IN", help="the checkpoint")
    parser.add_argument("out", metavar="OUT", help="a folder (hf) or a .pt file (s3prl)")
    parser.add_argument("--to", choices=("hf", "s3prl"), required=True, help="the format")
    parser.add_argument(
        "--normalize", choices=("true", "false"), help="what the model hears (default: its own convention, see above)"
    )
    arguments = parser.parse_args(list(words))

    from speechft.checkpoints.convert import convert
    from speechft.upstreams.load import conventions, locate

    normalize = conventions(arguments.source).get("normalize")  # a published model's own convention, not the hub's file
    if arguments.normalize is not None:
        normalize = arguments.normalize == "true"
    written = convert(locate(arguments.source), Path(arguments.out).expanduser(), arguments.to, normalize)
    result(arguments.json, {"out": str(written), "to": arguments.to}, [str(written)])
    return 0
