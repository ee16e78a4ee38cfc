"""From a name or a path to an upstream. Names are the files of `configs/upstream/`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft.checkpoints.weight_files import INDEX, WEIGHTS
from speechft.config.locate import group_names, read_group
from speechft.console import say_once
from speechft.errors import SpeechFTError, UsageError
from speechft.own import in_file
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from speechft.checkpoints.folder import Checkpoint

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def load_upstream(
    source: str | Path | Mapping[str, Any],
    normalize: bool | None = None,
    chunk_seconds: float | None = None,
    chunk_overlap: float | None = None,
) -> Upstream:
    """Load an upstream, ready for inference (`eval()`, on the CPU).

    Args:
        source: a known name (`hubert_nano`, `hubert_base`, `fbank` ...), a Hugging Face folder, a native `.pt` file
            (`checkpoints/native.py`), a Hugging Face hub name (`facebook/hubert-base-ls960`), a class of your own
            (`my_upstream.py:MyUpstream`), or one file of `configs/upstream/` as a mapping.
        normalize: overrides the checkpoint's input normalisation (`checkpoints/convention.py`).
        chunk_seconds, chunk_overlap: longer recordings in pieces of so many seconds that share so many (`Chunked`).

    Raises:
        UsageError: neither a known name nor a folder; impossible settings.
        SpeechFTError: a damaged or foreign checkpoint, or one that cannot be fetched.
    """
    settings = conventions(source)
    upstream = _build(settings, normalize)
    seconds = settings.get("chunk_seconds") if chunk_seconds is None else chunk_seconds
    if seconds is None:
        return upstream
    from speechft.upstreams.chunked import OVERLAP, Chunked

    overlap = settings.get("chunk_overlap", OVERLAP) if chunk_overlap is None else chunk_overlap
    return Chunked(upstream, float(seconds), float(overlap)).eval()


def load_in_place(folder: Path, sha256: str) -> Upstream:
    """An upstream whose weights stay in their file: one look at it takes the memory of one of its modules.

    Pages of the file are read as modules use them, and given back after each. Weights that are not stored in float32
    are held as usual, converted.

    Args:
        folder: a Hugging Face folder with `model.safetensors`, which nobody changes meanwhile.
        sha256: of its weights; it is believed.

    Raises:
        SpeechFTError: as `load_upstream`.
    """
    from speechft.checkpoints.folder import read_folder

    checkpoint = read_folder(folder, in_place=True)
    checkpoint.sha256 = sha256
    upstream = _built(checkpoint, {"name": str(folder)}, str(folder), None)
    if checkpoint.mapped is not None:
        forget = checkpoint.mapped.forget
        for module in upstream.modules():
            module.register_forward_hook(lambda *_: forget())
    return upstream


_OPTIONS = ("name", "source", "family", "normalize", "random_seed", "dropout", "padding", "chunk_seconds",
            "chunk_overlap", "deltas", "mean_norm")  # fmt: skip


def conventions(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """How a source is to be used: the file of `configs/upstream/` that names it or its place on the hub, or defaults.

    A class of the user's own becomes a folder here (`own.py: as_source`).

    Raises:
        UsageError: an unknown or impossible setting.
    """
    if isinstance(source, Mapping):
        settings = dict(source)
    elif _known(str(source)):
        settings = read_group("upstream", str(source))
    else:
        settings = {"name": str(source), "source": str(source)}
        if not Path(source).expanduser().exists() and str(source).count("/") == 1:
            published = (read_group("upstream", name) for name in group_names("upstream"))
            same = next((one for one in published if one.get("source") == str(source)), {})
            settings = {**same, **settings}
    if "kind" in settings or in_file(str(settings.get("source") or settings["name"])):
        from speechft.upstreams.own import as_source

        settings = as_source(settings)
    unknown = sorted(settings.keys() - set(_OPTIONS))
    if unknown:
        raise UsageError(f"unknown setting of an upstream: {', '.join(unknown)}", f"known: {', '.join(_OPTIONS)}")
    for key in ("normalize", "mean_norm"):
        if not isinstance(settings.get(key), (bool, type(None))):
            raise UsageError(f"upstream.{key} is {settings[key]!r}", "true, false, or null")
    for key in ("dropout", "chunk_seconds", "chunk_overlap"):
        value = settings.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise UsageError(f"upstream.{key} is {value!r}", "give a number, or null")
    dropout = settings.get("dropout")
    if dropout is not None and not 0 <= dropout < 1:
        raise UsageError(f"upstream.dropout is {dropout}", "it is a share: at least 0, below 1")
    return settings


def _build(settings: Mapping[str, Any], normalize: bool | None) -> Upstream:
    name, where = str(settings["name"]), str(settings.get("source") or settings["name"])
    if settings.get("family") == "fbank":
        from speechft.upstreams.fbank import Fbank

        return Fbank(name, int(settings.get("deltas", 2)), bool(settings.get("mean_norm", False)))

    from speechft.checkpoints.convention import tell
    from speechft.checkpoints.convert import read_checkpoint

    if normalize is None and settings.get("normalize") is not None:
        normalize = bool(settings["normalize"])
    folder = locate(where)
    if Path(where).expanduser().exists():
        where = str(folder)  # so that what is written down holds from any folder
    checkpoint = read_checkpoint(folder)
    if normalize is None and checkpoint.overruled:
        tell(where)
    return _built(checkpoint, settings, where, normalize)


def _built(checkpoint: Checkpoint, settings: Mapping[str, Any], where: str, normalize: bool | None) -> Upstream:
    from speechft.checkpoints.folder import OWN
    from speechft.upstreams import decoar2, own, speech_encoder, whisper
    from speechft.upstreams.padded import PADDINGS

    name = str(settings["name"])
    seed, dropout = settings.get("random_seed"), settings.get("dropout")
    seed = None if seed is None else int(seed)
    if checkpoint.config.get("model_type") == "whisper":
        if normalize:
            raise UsageError("Whisper takes waveforms as they are", "leave upstream.normalize out")
        return whisper.build(checkpoint, name, where, seed, dropout)
    if checkpoint.config.get("model_type") == "decoar2":
        return decoar2.build(checkpoint, name, where, normalize, seed, dropout)
    if checkpoint.config.get("model_type") == OWN:
        return own.build(checkpoint, name, where, normalize, seed)
    padding = str(settings.get("padding") or "own")
    if padding not in PADDINGS:
        raise UsageError(f"unknown upstream.padding {padding!r}", f"known: {', '.join(PADDINGS)}")
    return speech_encoder.build(checkpoint, name, where, normalize, seed, dropout, padding)


def _known(source: str) -> bool:
    """Whether a name is a file of `configs/upstream/`; once, say so where a folder here has the same name."""
    if source not in group_names("upstream"):
        return False
    if Path(source).exists():
        say_once(f"{source} is the known upstream of that name; for {source} in this folder write ./{source}")
    return True


def locate(source: str) -> Path:
    """The local folder or `.pt` file of a checkpoint.

    An asset of the package, a path, a class of the user's own, or a hub name fetched into the hub's cache.
    """
    if source.startswith("asset:"):
        return ASSETS / source.removeprefix("asset:")
    if in_file(source):
        from speechft.upstreams.own import folder_of

        return folder_of(source)
    path = Path(source).expanduser()
    if _known(source):
        where = read_group("upstream", source).get("source")
        if not where:
            raise UsageError(
                f"{source} names no checkpoint",
                "choose a pre-trained upstream, or give its path (upstream.source=PATH in train, PATH elsewhere)",
            )
        return locate(str(where))
    if path.exists():
        return path.resolve()
    here = "/" in source and Path(source).parent.is_dir()  # runs/mine, mistyped: no repository of the hub is meant
    if path.suffix == ".pt" or source.startswith((".", "~", "/")) or source.count("/") > 1 or here:
        beside = get_close_matches(path.name, [one.name for one in path.parent.iterdir()], 1) if here else []
        hint = f"did you mean {path.parent / beside[0]}? " if beside else ""
        raise UsageError(
            f"no such file or folder: {source}", f"{hint}an upstream is a name, a folder, a .pt file, or a hub name"
        )
    if "/" not in source:
        names = group_names("upstream")
        close = "".join(f"did you mean {name}? " for name in get_close_matches(source, names, 1))
        raise UsageError(
            f"upstream {source!r} is neither a known name nor a folder", f"{close}known names: {', '.join(names)}"
        )
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json",
                "model-*-of-*.safetensors"]  # fmt: skip
    older = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]
    try:
        folder = Path(snapshot_download(source, allow_patterns=patterns))
        if not any((folder / name).is_file() for name in (WEIGHTS, INDEX)):
            folder = Path(snapshot_download(source, allow_patterns=[*patterns, *older]))
    except Exception as error:  # the hub client raises many kinds; to the user they are all "not available"
        raise SpeechFTError(
            f"{source} could not be fetched from the Hugging Face hub ({type(error).__name__})",
            "check the name and the network, or give a local folder",
        ) from error
    return folder
