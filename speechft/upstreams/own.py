"""An architecture of the user's own: a class in a file, and folders that hold its weights and that file's text.

A folder's code runs only where the user has named a file of the very same text before: what came from elsewhere runs
nothing by itself.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import CODE, OWN, Checkpoint, canonical_name, is_head, misfit, write_folder
from speechft.checkpoints.hashing import weights_sha256
from speechft.errors import SpeechFTError, UsageError
from speechft.files import cache_dir, read_json, sha256_json, write_text
from speechft.own import in_file, own_class
from speechft.upstreams.base import Hidden, Identity, Upstream, scaled
from speechft.upstreams.own_checks import check_features, check_model, read_weights

SETTING = "upstream.kind"
HINT = "give path/to/file.py:ClassName (docs/own_upstream.md)"
_OURS = ("name", "source", "normalize", "random_seed", "chunk_seconds", "chunk_overlap")
"""Settings that are speechft's; all others go to the class."""


class Own(Upstream):
    """The user's model behind the upstream protocol: its input is scaled and filled up here, its output is float32.

    Args:
        model: the user's.
        config, preprocessor, code: what `checkpoint()` writes beside the weights.
        identity: what it is.
    """

    trainable = True

    def __init__(
        self, model: Upstream, config: dict[str, Any], preprocessor: dict[str, Any], code: str, identity: Identity
    ) -> None:
        super().__init__()
        self.model = model
        self.original_config, self.preprocessor, self.code = config, preprocessor, code
        self.identity = model.identity = identity
        self.dim, self.num_layers, self.hop = int(model.dim), int(model.num_layers), int(model.hop)
        self.first_centre = model.first_centre
        samples = torch.arange(1, 16_001)
        enough = samples[model.frame_counts(samples) >= 1]
        if not len(enough):
            raise UsageError(f"{SETTING}: a second of audio gives no frame", "mend its frame_counts")
        self._shortest = int(enough[0])

    @property
    def grid(self) -> int:
        return self.model.grid

    @property
    def layers(self) -> Sequence[nn.Module]:
        return self.model.layers

    def frame_counts(self, samples: Tensor) -> Tensor:
        return self.model.frame_counts(samples.clamp(min=self._shortest))

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        waves = [scaled(wave) if self.identity.normalize else wave.float() for wave in waveforms]
        waves = [nn.functional.pad(wave, (0, max(0, self._shortest - wave.numel()))) for wave in waves]
        hidden = self.model(waves, last_only)
        return Hidden([state.float() for state in hidden.states], hidden.frames)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return self.model.parts()

    def checkpoint(self) -> Checkpoint:
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return Checkpoint(dict(self.original_config), dict(self.preprocessor), state, code=self.code)


def as_source(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that name a class (`kind`, or a source `FILE.py:ClassName`) as those of a folder that was made of it.

    Raises:
        UsageError, SpeechFTError: as `folder_of`.
    """
    given = dict(settings)
    kind = given.pop("kind", None)
    source = given.get("source")
    if kind is None:  # it was named in the place of a folder
        kind, source = source or given["name"], None
    options = {key: given.pop(key) for key in list(given) if key not in _OURS}
    seed, normalize = given.get("random_seed"), given.get("normalize")
    folder = folder_of(str(kind), source, options, bool(normalize), None if seed is None else int(seed))
    if in_file(str(given["name"])):
        given["name"] = str(kind).rpartition(":")[2]
    return {**given, "source": str(folder)}


def folder_of(
    kind: str, source: str | Path | None = None, options: Mapping[str, Any] | None = None, normalize: bool = False,
    random_seed: int | None = None,
) -> Path:  # fmt: skip
    """Build the user's class, look whether it keeps to the protocol, and put code and weights into one folder.

    Args:
        kind: `path/to/file.py:ClassName`. The code inside such a folder stands for that folder.
        source: its weights: a `.safetensors` file, a `.pt` file of a state dictionary, whatever the class's
            `read_weights(path)` reads, or a folder that this made; None takes them as the class makes them.
        options: of its `__init__`.
        normalize: scale each waveform to zero mean and unit variance first.
        random_seed: of weights that are drawn.

    Returns:
        A folder in the cache, named by its content.

    Raises:
        UsageError: no such class, or one that does not keep to the protocol; weights that do not fit it.
        SpeechFTError: weights that cannot be read.
    """
    if not in_file(kind):
        raise UsageError(f"{SETTING} is {kind!r}", HINT)
    file, _, name = kind.rpartition(":")
    path = Path(file).expanduser()
    found = own_class(kind, SETTING, "upstream", Upstream)
    code = path.read_bytes().decode()
    _remember(code)
    if source is None and not options and path.name == CODE and _holds(path.parent, name):
        return path.parent.resolve()
    own = {"class": name, "code_sha256": _sha256(code), "options": dict(options or {})}
    try:
        json.dumps(own)
    except TypeError as error:
        raise UsageError(
            f"{SETTING}: the options of {name} cannot be written down ({error})", "give plain values"
        ) from error
    config = {"model_type": OWN, "architectures": [name], "own": own}
    preprocessor = {"do_normalize": normalize, "sampling_rate": 16_000}
    model = _made(found, own, random_seed)
    for key in model.state_dict():
        if is_head(key) or canonical_name(key) != key:
            raise UsageError(f"{SETTING}: {name} has a weight called {key!r}, which checkpoints take for a task's head "
                             "or for a name of transformers'", "call that part otherwise")  # fmt: skip
    if source is not None:
        _fill(model, read_weights(found, Path(source).expanduser()), f"the class {name}", str(source))
    check_model(model, SETTING)
    identity = Identity(name, _family(config), str(source or kind), normalize, weights_sha256(model.state_dict()))
    upstream = Own(model, config, preprocessor, code, identity).eval()
    check_features(upstream, name, SETTING)
    folder = cache_dir() / OWN / f"{name}-{sha256_json([config, preprocessor, identity.sha256])[:24]}"
    return folder if (folder / CODE).is_file() else write_folder(folder, upstream.checkpoint())


def build(
    checkpoint: Checkpoint, name: str, source: str, normalize: bool | None = None, random_seed: int | None = None
) -> Own:
    """Build the model of a folder and fill it strictly.

    Args:
        checkpoint: configuration, weights and code.
        name, source: for the identity.
        normalize: None takes what the folder says.
        random_seed: draw fresh weights instead.

    Raises:
        SpeechFTError: code that nobody has named here; weights that do not fit it.
    """
    own = checkpoint.config.get("own")
    if not isinstance(own, Mapping) or not {"class", "code_sha256", "options"} <= own.keys():
        raise SpeechFTError(f"the config.json of {source} does not say which class it is", "copy the folder again")
    if _sha256(checkpoint.code) != own["code_sha256"]:
        raise SpeechFTError(
            f"{CODE} in {source} is not the code that its weights were trained with",
            f"bring the old text back, or begin anew: {SETTING}=my_file.py:{own['class']} upstream.source={source}",
        )
    file = _known(checkpoint.code)
    if not file.is_file():
        raise SpeechFTError(
            f"{source} brings code of its own, {CODE}, that has not run here before, so it does not run now",
            f"read it; if you trust it, name it once: speechft doctor --upstream {source}/{CODE}:{own['class']}",
        )
    model = _made(own_class(f"{file}:{own['class']}", SETTING, "upstream", Upstream), own, random_seed)
    if random_seed is None:
        _fill(model, checkpoint.state, CODE, source)
    if normalize is None:
        normalize = bool(checkpoint.preprocessor.get("do_normalize", False))
    preprocessor = {**checkpoint.preprocessor, "do_normalize": normalize}
    identity = Identity(name, _family(checkpoint.config), source, normalize, weights_sha256(model.state_dict()))
    return Own(model, checkpoint.config, preprocessor, checkpoint.code, identity).eval()


def _made(found: Any, own: Mapping[str, Any], random_seed: int | None) -> Upstream:
    try:
        inspect.signature(found).bind(**own["options"])
    except TypeError as error:
        raise UsageError(
            f"{SETTING}: {own['class']}: {error}", "its options are given as +upstream.NAME=VALUE"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        model: Upstream = found(**own["options"])
    return model.float()


def _fill(model: nn.Module, state: Mapping[str, Tensor], what: str, source: str) -> None:
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    problems = misfit(own, {name: tensor.shape for name, tensor in state.items()})
    if problems:
        raise SpeechFTError(f"the weights of {source} do not fit {what}: {problems}",
                            "give it the same options, or a read_weights(path) that renames them")  # fmt: skip
    model.load_state_dict(dict(state), strict=True)


def _family(config: Mapping[str, Any]) -> str:
    """The class's name, and a hash of its code and its options: what the features depend on besides the weights."""
    return f"{OWN}-{config['own']['class']}-{sha256_json(config['own'])[:16]}"


def _sha256(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _known(code: str) -> Path:
    """Where the text is kept once a file of it was named."""
    return cache_dir() / OWN / "code" / f"{_sha256(code)}.py"


def _remember(code: str) -> None:
    if not _known(code).is_file():
        write_text(_known(code), code)


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder is an upstream of a class of this name."""
    if not (folder / "config.json").is_file():
        return False
    config = read_json(folder / "config.json")
    return bool(config.get("model_type") == OWN and config.get("own", {}).get("class") == name)
