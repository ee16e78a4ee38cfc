"""Hugging Face folders (config.json, model.safetensors, preprocessor_config.json): read strictly, written whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.checkpoints.convention import MARK, overruled, settled
from speechft.checkpoints.tensor_file import MappedFile
from speechft.checkpoints.weight_files import WEIGHTS, read_tensors, read_weights
from speechft.errors import SpeechFTError
from speechft.files import read_json, whole_folder

LEARNER = "learner.safetensors"  # upstream and head, in a checkpoint of stage 1
HEAD, NATIVE = "pretraining_head.safetensors", "native.json"
OWN, CODE = "own", "upstream.py"
"""`model_type` of an architecture of the user's own, and the file of its code."""
_PREFIXES = ("hubert.", "wav2vec2.", "wavlm.", "unispeech_sat.", "data2vec_audio.", "sew.")
WHISPER_ENCODER = ("model.encoder.", "encoder.")
"""How the encoder's names begin in a checkpoint of the whole model; a file of the encoder alone has no such prefix."""
WHISPER_CLASS = "WhisperEncoder"
"""transformers' name of the encoder alone, for `architectures`."""
_HEADS = (
    "lm_head.", "classifier.", "projector.", "quantizer.", "project_q.", "project_hid.", "final_proj.",
    "label_embs_concat", "label_embeddings_concat", "layer_norm_for_extract.", "speaker_proj.", "tdnn.", "objective.",
    "layer_weights",
)  # fmt: skip
_HEADS_BY_NAME = ("feature_extractor.weight", "feature_extractor.bias")  # transformers' *ForXVector name a layer so


@dataclass
class Checkpoint:
    """An upstream's weights and what must travel with them.

    Attributes:
        config: the content of `config.json`.
        preprocessor: the content of `preprocessor_config.json`, settled (`convention.py`); {} where there is none and
            nothing to settle.
        state: canonical names -> tensors, types as stored.
        dropped: names of task heads that were in the file and are no part of an upstream.
        head: the pre-training's head under its native names, where it came from a native file; no feature needs it.
        native: the native configuration, likewise.
        overruled: whether the file asks for another normalisation than `preprocessor` says.
        code: the text of `upstream.py`, where the architecture is the user's own.
        mapped: the file that the tensors of `state` lie in, where they must not be copied.
        sha256: of `state`, where it is known (`hashing.weights_sha256`).
    """

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    state: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)
    head: dict[str, Tensor] = field(default_factory=dict)
    native: dict[str, Any] = field(default_factory=dict)
    overruled: bool = False
    code: str = ""
    mapped: MappedFile | None = None
    sha256: str | None = None


def canonical_name(name: str) -> str:
    """A tensor's name without the wrapper's prefix and with today's spelling of weight norm."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.replace("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0")
    return name.replace("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1")


def is_head(name: str) -> bool:
    """Whether a canonical name belongs to a task's or the pre-training's head rather than to the upstream."""
    return name.startswith(_HEADS) or name in _HEADS_BY_NAME


@dataclass(frozen=True)
class PretrainingHead:
    """The pre-training's head inside the weights of a Hugging Face folder (`Wav2Vec2ForPreTraining`).

    Attributes:
        prefix: how the upstream's tensors are named in such a file, before their canonical names.
        names: of the head's tensors, as stored, in order.
    """

    prefix: str
    names: tuple[str, ...]

    @classmethod
    def within(cls, config: Mapping[str, Any], stored: Sequence[str]) -> PretrainingHead | None:
        """That of a folder; None where the class that was saved is no `...ForPreTraining`, or the file has no head.

        Args:
            config: the content of `config.json`.
            stored: names in the weights' files.
        """
        architectures = config.get("architectures")
        if not isinstance(architectures, list) or len(architectures) != 1:
            return None
        names = tuple(sorted(name for name in stored if is_head(name)))
        prefix = next((one for one in _PREFIXES if any(name.startswith(one) for name in stored)), "")
        told = str(architectures[0]).endswith("ForPreTraining")
        return cls(prefix, names) if told and names and prefix else None


def misfit(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], extra: str = "unexpected") -> str:
    """How two sets of tensors differ, from their names and shapes; empty when they do not.

    Args:
        expected, found: name -> shape.
        extra: what to call tensors that only `found` has.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = sorted(name for name in expected.keys() & found.keys() if tuple(expected[name]) != tuple(found[name]))
    return "; ".join(
        f"{len(names)} {word} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
        for names, word in ((missing, "missing"), (unexpected, extra), (shapes, "of another shape"))
        if names
    )


def of_upstream(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that names the class of the upstream alone: what was `Wav2Vec2ForPreTraining` is written without
    its head, as `Wav2Vec2Model`, and of a whole Whisper the encoder."""
    if config.get("model_type") == "whisper":
        return {**config, "architectures": [WHISPER_CLASS]}
    names = config.get("architectures")
    if not isinstance(names, list):
        return dict(config)
    return {**config, "architectures": [re.sub(r"For[A-Z]\w*$", "Model", str(name)) for name in names]}


def stored_as(config: Mapping[str, Any], kinds: Iterable[torch.dtype]) -> dict[str, Any]:
    """A configuration that names the type which the weights beside it have: transformers loads them in it.

    Args:
        config: may name another (of half a θ0, say, whose fine-tuned weights are float32).
        kinds: of the tensors; the widest counts.
    """
    floating = [kind for kind in kinds if kind.is_floating_point]
    names = [name for name in ("dtype", "torch_dtype") if name in config] or ["dtype"] * (len(set(floating)) > 1)
    if not floating:
        return dict(config)
    widest = max(floating, key=lambda kind: (kind.itemsize, kind == torch.float16))
    return {**config, **dict.fromkeys(names, str(widest).removeprefix("torch."))}


def read_folder(folder: str | Path, in_place: bool = False) -> Checkpoint:
    """Read a Hugging Face folder.

    Args:
        folder: with its weights in one file or in several.
        in_place: leave the tensors in `model.safetensors`, see `Checkpoint.mapped`.

    Raises:
        SpeechFTError: the folder, `config.json` or the weights are missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SpeechFTError(f"{folder} is no folder", "give a folder with config.json and model.safetensors")
    if not (folder / "config.json").is_file() and (folder / "config.yaml").is_file():
        raise SpeechFTError(
            f"{folder} is a run, no upstream",
            f"its result is {folder / 'finetuned'}; to go on from it by another training: after={folder}",
        )
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise SpeechFTError(f"{folder / 'config.json'} is no configuration", "copy or convert the checkpoint again")
    preprocessor_file = folder / "preprocessor_config.json"
    preprocessor = read_json(preprocessor_file) if preprocessor_file.is_file() else {}
    mapped = MappedFile(folder / WEIGHTS) if in_place else None
    state, dropped = {}, []
    for name, tensor in (read_weights(folder) if mapped is None else mapped.tensors).items():
        canonical = canonical_name(name)
        if is_head(canonical):
            dropped.append(name)
        else:
            state[canonical] = tensor
    head = read_tensors(folder / HEAD) if (folder / HEAD).is_file() else {}
    native = read_json(folder / NATIVE) if (folder / NATIVE).is_file() else {}
    code = ""
    if config.get("model_type") == OWN:
        if not (folder / CODE).is_file():
            raise SpeechFTError(f"{folder / CODE} is missing", "the folder is incomplete; copy it again")
        code = (folder / CODE).read_bytes().decode()
    return Checkpoint(
        config, settled(config, preprocessor), state, dropped, head, native, overruled(config, preprocessor), code,
        mapped,
    )  # fmt: skip


def write_folder(
    folder: str | Path, checkpoint: Checkpoint, extra_files: Mapping[str, str] | None = None, half: bool = False
) -> Path:
    """Write a Hugging Face folder, whole.

    Args:
        folder: where; an old one is replaced in one step.
        checkpoint: what.
        extra_files: name -> text (`README.md`, `merge.json`).
        half: store floating-point tensors as float16.
    """
    from safetensors.torch import save_file

    state = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in checkpoint.state.items()
    }
    with whole_folder(folder) as temporary:
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        if checkpoint.head:
            kept = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.head.items()}
            save_file(kept, temporary / HEAD, metadata={"format": "pt"})
        preprocessor = {**checkpoint.preprocessor, **MARK}
        config = stored_as(checkpoint.config, (tensor.dtype for tensor in state.values()))
        texts = {
            "config.json": json.dumps(config, indent=2, sort_keys=True) + "\n",
            "preprocessor_config.json": json.dumps(preprocessor, indent=2, sort_keys=True) + "\n",
            **({NATIVE: json.dumps(checkpoint.native, indent=2, sort_keys=True) + "\n"} if checkpoint.native else {}),
            **({CODE: checkpoint.code} if checkpoint.code else {}),
            **(extra_files or {}),
        }
        for name, text in texts.items():
            (temporary / name).write_bytes(text.encode())
    return Path(folder)
