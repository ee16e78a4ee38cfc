"""fairseq's, s3prl's and Microsoft's `.pt` files of HuBERT, wav2vec 2.0, WavLM, DeCoAR 2.0 ...: read strictly, written.

| file | content | source |
|---|---|---|
| s3prl, HuBERT | `task_cfg, model_cfg, model_weight, dictionaries_symbols` | `s3prl/upstream/hubert/convert.py` |
| s3prl, wav2vec 2.0 | the same without `dictionaries_symbols` | `s3prl/upstream/wav2vec2/convert.py` |
| WavLM, UniSpeech-SAT | `cfg, model` | `s3prl/upstream/{wavlm,unispeech_sat}/expert.py` |
| DeCoAR 2.0 | `model` | `s3prl/upstream/decoar2/expert.py` |
| fairseq | `cfg` (or the older `args`), `model`, `task_state` | `fairseq/checkpoint_utils.py` |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechft.checkpoints.folder import Checkpoint
from speechft.checkpoints.keymaps import HEADS, in_head, rename
from speechft.checkpoints.native_config import decoar2_config, to_hf, to_native
from speechft.checkpoints.unpickle import load_untrusted, plain
from speechft.errors import SpeechFTError
from speechft.files import save_torch, whole_file

HUB_ENTRIES = {
    "hubert": "hubert_custom",
    "wav2vec2": "wav2vec2_custom",
    "wavlm": "wavlm_local",
    "unispeech-sat": "unispeech_sat_local",
    "decoar2": "decoar2_custom",
}
"""Family -> the entry of `s3prl.hub` that loads its file."""

READ_FROM_FOLDERS = ("hubert", "wav2vec2")
"""What s3prl also reads from Hugging Face folders (`hf_hubert_custom`, `hf_wav2vec2_custom`). A WavLM folder these load
too, but without its relative positions."""

_WRAPPER = "w2v_encoder.w2v_model."  # fairseq's models fine-tuned by CTC hold the upstream under this name
_MASK_EMBEDDING = "mask_emb"
_HEADLESS = ("wavlm", "unispeech-sat")


def read_native(path: str | Path) -> Checkpoint:
    """Read a `.pt` file.

    The pre-training's head and the native configuration come along (`Checkpoint.head`, `.native`), so that
    `write_native` gives back what was read, bit for bit.

    Raises:
        SpeechFTError: damaged, refused (`load_untrusted`), of no known layout, or with tensors that are not its
            family's.
    """
    path = Path(path)
    content = load_untrusted(path)
    if not isinstance(content, Mapping):
        raise SpeechFTError(f"{path} is no checkpoint of a speech upstream", "it holds no dictionary")
    family, model_config, task_config, weights, extra = _layout(content, path)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise SpeechFTError(f"{path} holds no weights where they belong", "the checkpoint is damaged or foreign")
    if any(name.startswith(_WRAPPER) for name in weights):
        weights = {name.removeprefix(_WRAPPER): value for name, value in weights.items() if name.startswith(_WRAPPER)}
    head = {name: tensor for name, tensor in weights.items() if in_head(name, family)}
    body = {_today(name): tensor for name, tensor in weights.items() if name not in head}
    config = decoar2_config(body, str(path)) if family == "decoar2" else to_hf(family, model_config, str(path))
    state = rename(body, family, config.get("feat_extract_norm") == "layer", True, str(path))
    width = config["hidden_size"]
    if "conv_dim" in config and config["conv_dim"][-1] == width and "feature_projection.projection.weight" not in state:
        # fairseq projects only where the widths differ; Hugging Face always does.
        state["feature_projection.projection.weight"] = torch.eye(width)
        state["feature_projection.projection.bias"] = torch.zeros(width)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000,
        "do_normalize": bool(task_config.get("normalize", False)),
    }  # fmt: skip
    if family == "decoar2":
        return Checkpoint(config, {"sampling_rate": 16000, "do_normalize": False}, state, head=head)
    native = {"family": family, "model_cfg": model_config, "task_cfg": task_config, **extra}
    return Checkpoint(config, preprocessor, state, head=head, native=native)


def _layout(content: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any], dict[str, Any], Any, dict[str, Any]]:
    """Family, the model's and the task's configuration, the weights, and what else must be kept."""
    if "model_weight" in content and "model_cfg" in content:
        model, task = plain(content["model_cfg"]), plain(content.get("task_cfg", {}))
        if "dictionaries_symbols" in content:
            symbols = plain(content["dictionaries_symbols"])
            return "hubert", model, task, content["model_weight"], {"dictionaries_symbols": symbols}
        return "wav2vec2", model, task, content["model_weight"], {}
    if "model" in content and ("cfg" in content or "args" in content):
        config = plain(content.get("cfg") or content.get("args"))
        if not isinstance(config, Mapping):
            raise SpeechFTError(
                f"{path} holds no configuration where it belongs", "the checkpoint is damaged or foreign"
            )
        if "model" not in config and "relative_position_embedding" in config:  # Microsoft's: one flat dictionary
            family = "wavlm" if config["relative_position_embedding"] else "unispeech-sat"
            return family, dict(config), dict(config), content["model"], {}
        model, task = _section(config, "model"), _section(config, "task")
        if isinstance(model.get("w2v_args"), Mapping):  # fine-tuned: the upstream's own configuration is inside
            inner, normalize = model["w2v_args"], task.get("normalize")
            model, task = _section(inner, "model"), {**_section(inner, "task"), "normalize": normalize}
        name = str(model.get("_name") or model.get("arch") or "")
        if "w2v_path" in model:
            raise SpeechFTError(
                f"{path} was fine-tuned ({name}) and does not say from what: its w2v_args is empty",
                "write the configuration of the file at its w2v_path there, and save it again",
            )
        if name not in ("hubert", "wav2vec2"):
            raise SpeechFTError(
                f"{path} is a fairseq checkpoint of an unknown model ({name or 'unnamed'})", "known: hubert, wav2vec2"
            )
        symbols = {"dictionaries_symbols": _symbols(content)} if name == "hubert" else {}
        return name, model, task, content["model"], symbols
    weights = content.get("model")
    if isinstance(weights, Mapping) and "post_extract_proj.weight" in weights:
        return "decoar2", {}, {}, weights, {}
    raise SpeechFTError(
        f"{path} is of no known layout (it has {', '.join(sorted(map(str, content)))[:80]})",
        "known: s3prl's converted files, fairseq's HuBERT and wav2vec 2.0, WavLM's, UniSpeech-SAT's, DeCoAR 2.0's",
    )


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """fairseq's configuration of the model or the task. Before Hydra it kept one flat namespace for both, in which
    `task` is the task's name."""
    found = config.get(name)
    return dict(found if isinstance(found, Mapping) else config)


def _symbols(content: Mapping[str, Any]) -> list[list[str] | None]:
    """The symbols of HuBERT's label sets, or numbers in their place where the file has only embeddings of the labels.

    `fairseq/tasks/hubert_pretraining.py` keeps a list of dictionaries, in some versions by name. s3prl's module needs
    to know how many labels there are.
    """
    state = plain(content.get("task_state"))
    state = state if isinstance(state, Mapping) else {}
    books = state.get("dictionaries") or state.get("pt_dictionaries") or []
    books = list(books.values()) if isinstance(books, Mapping) else books if isinstance(books, list) else []
    symbols: list[Any] = [book.get("symbols") if isinstance(book, Mapping) else None for book in books]
    labels = content["model"].get("label_embs_concat") if isinstance(content["model"], Mapping) else None
    if isinstance(labels, Tensor) and not (symbols and all(symbols)):
        return [[str(number) for number in range(len(labels))]]
    return symbols or [None]


def write_native(path: str | Path, checkpoint: Checkpoint, source: str) -> Path:
    """Write the file that plain `s3prl.hub` loads, whole.

    The family's entry of `HUB_ENTRIES` loads it. Without a pre-training head in its own spelling (a Hugging Face
    folder's is not taken over) s3prl's modules get one of zeros; no feature comes from it.

    Raises:
        SpeechFTError: a family without a native format, or a configuration that it does not cover.
    """
    family = str(checkpoint.config.get("model_type"))
    if family not in HEADS:
        raise SpeechFTError(f"{source} has no s3prl format ({family})", f"known: {', '.join(HEADS)}")
    if family == "decoar2":
        weights = {**rename(checkpoint.state, family, False, False, source), **checkpoint.head}
        with whole_file(path) as temporary:
            save_torch({"model": weights}, temporary)
        return Path(path)
    # The original configuration describes the original head; without that head it would ask for one.
    head = checkpoint.head if "final_proj.weight" in checkpoint.head else {}  # fine-tuned by fairseq: labels alone
    kept = checkpoint.native if head or family in _HEADLESS else {}
    model_config = dict(kept.get("model_cfg") or to_native(family, checkpoint.config, source))
    layer_norm = checkpoint.config.get("feat_extract_norm") == "layer"
    state = dict(checkpoint.state)
    width = int(state["encoder.layer_norm.weight"].numel())
    if state["feature_projection.layer_norm.weight"].numel() == width:  # s3prl has no projection here
        projection = state.pop("feature_projection.projection.weight")
        bias = state.pop("feature_projection.projection.bias")
        if not torch.equal(projection.float(), torch.eye(width)) or bool(bias.any()):
            raise SpeechFTError(
                f"{source} projects {width} channels to {width}, which s3prl's {family} leaves out",
                "use it as a Hugging Face folder",
            )
    weights = rename(state, family, layer_norm, False, source)
    weights.setdefault(_MASK_EMBEDDING, torch.zeros(width))
    weights |= head or _empty_head(family, width, int(weights["layer_norm.weight"].numel()))
    normalize = bool(checkpoint.preprocessor.get("do_normalize", True))
    content: dict[str, Any]
    if family in _HEADLESS:
        content = {"cfg": {**model_config, "normalize": normalize}, "model": weights}
    else:
        task_config = {"sample_rate": 16000, **(kept.get("task_cfg") or {}), "normalize": normalize}
        content = {"task_cfg": task_config, "model_cfg": model_config, "model_weight": weights}
        if family == "hubert":
            content["dictionaries_symbols"] = kept.get("dictionaries_symbols", [None])
    with whole_file(path) as temporary:
        save_torch(content, temporary)
    return Path(path)


def _empty_head(family: str, width: int, channels: int) -> dict[str, Tensor]:
    if family in _HEADLESS:
        return {}
    head = {"final_proj.weight": torch.zeros(width, width), "final_proj.bias": torch.zeros(width)}
    if family == "wav2vec2":
        head |= {"project_q.weight": torch.zeros(width, channels), "project_q.bias": torch.zeros(width)}
    return head


def _today(name: str) -> str:
    """Both spellings of weight norm are accepted; the older one is s3prl's."""
    name = name.replace("pos_conv.0.parametrizations.weight.original0", "pos_conv.0.weight_g")
    return name.replace("pos_conv.0.parametrizations.weight.original1", "pos_conv.0.weight_v")
