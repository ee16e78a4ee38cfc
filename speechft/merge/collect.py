"""Collecting what `fisher` and `regmean` weigh models by: one pass of every parent over speech without labels.

Fisher information needs a distribution of outputs. An upstream has none of its own, so its last hidden state is taken
as the mean of a normal distribution of unit variance for every frame: then the Fisher information is JᵀJ, and squares
of gradients of the log-likelihood of an output that is drawn from the model itself are an unbiased estimate of its
diagonal (2111.09832, equation 3; the model's own draws rather than labels, as there). Utterances are heard one by one,
so that nothing is padded; what is longer than `LONGEST` is heard in pieces.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechft.checkpoints.folder import LEARNER
from speechft.checkpoints.tensor_file import SafetensorsReader
from speechft.console import progress, say
from speechft.data.audio import SAMPLE_RATE, load_audio, remembered_info
from speechft.data.readers.base import Utterance
from speechft.data.readers.tables import table
from speechft.errors import SpeechFTError, UsageError
from speechft.files import sha256_file, sha256_json, whole_file
from speechft.merge.methods._tensors import tensor_seed
from speechft.merge.parents import Parents
from speechft.sharing import shared_folder
from speechft.upstreams.base import Upstream
from speechft.upstreams.load import load_upstream
from speechft.versions import versions

LONGEST = 20.0
"""Seconds of a piece."""
AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_SECONDS_BETWEEN_SAVES = 60.0

Gather = Callable[[Upstream, Tensor, torch.Generator, dict[str, Tensor]], int]
"""Adds one waveform's statistics to the sums by name; returns its frames."""


def collect_all(parents: Parents, kind: str, corpus: str, folder: Path, seed: int = 0) -> list[Path]:
    """A file of statistics for every parent, θ0's first; those that are there already are taken as they are.

    Args:
        parents: the models.
        kind: `fisher` or `regmean`.
        corpus: a folder of audio, or a table (`data/readers/tables.py`).
        folder: where the files go. An interrupted collection goes on where it stopped.
        seed: of the outputs that are drawn.

    Raises:
        UsageError: a parent is a training checkpoint.
        SpeechFTError: there is no speech, or audio cannot be read.
    """
    pieces = cut_up(speech_of(corpus))
    heard = _contents(pieces)
    normalize = None
    if parents.base.config.get("model_type") not in ("whisper", "decoar2"):
        normalize = bool(parents.tuned[0].preprocessor.get("do_normalize", True))
    readers = (parents.base, *parents.tuned)
    for reader, path in zip(readers, parents.paths, strict=True):
        if (reader.folder / LEARNER).is_file():
            raise UsageError(f"{path} is a checkpoint of training", f"{kind} needs whole models; give their folders")
    files = []
    for reader, path in zip(readers, parents.paths, strict=True):
        weights = reader.sha256()
        settings = {"kind": kind, "weights_sha256": weights, "corpus_sha256": heard, "seed": str(seed),
                    "normalize": json.dumps(normalize)}  # fmt: skip
        target = folder / f"{kind}-{weights[:12]}-{sha256_json(settings)[:12]}.safetensors"
        if target.is_file():
            say(f"{target.name}: collected before")
        else:
            with shared_folder(folder):
                _collect(load_upstream(reader.folder, normalize), kind, pieces, target, settings, path)
        files.append(target)
    return files


def corpus_sha256(corpus: str) -> str:
    """A hash of a corpus's speech: what its files hold, in which order, cut how.

    Raises:
        SpeechFTError: as `speech_of`.
    """
    return _contents(cut_up(speech_of(corpus)))


def _contents(pieces: Sequence[Utterance]) -> str:
    files = {path: sha256_file(path) for path in dict.fromkeys(piece.path for piece in pieces)}
    return sha256_json([[piece.id, files[piece.path], piece.start, piece.end] for piece in pieces])


def speech_of(corpus: str) -> list[Utterance]:
    """All audio of a folder in the order of its names, or the lines of a table.

    Raises:
        SpeechFTError: there is none.
    """
    path = Path(corpus).expanduser()
    if path.is_file():
        found = table(str(path), text=None)
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO)
        found = [Utterance(str(file.relative_to(path)), file) for file in files]
    else:
        raise SpeechFTError(f"corpus {path} is missing", "give a folder of audio, or a table with columns id and path")
    if not found:
        raise SpeechFTError(f"corpus {path} holds no speech", f"known are {', '.join(AUDIO)}, or a table of such files")
    return found


def cut_up(utterances: Sequence[Utterance], longest: float = LONGEST) -> list[Utterance]:
    """The same speech in pieces of at most so many seconds, with start and end given."""
    pieces = []
    for utterance in utterances:
        end = remembered_info(utterance.path).seconds
        end = end if utterance.end is None else min(utterance.end, end)
        start = utterance.start
        if not 0 <= start < end:
            raise SpeechFTError(f"utterance {utterance.id} is not inside its file", "mend its start and end")
        while start < end:
            stop = min(start + longest, end)
            pieces.append(Utterance(utterance.id, utterance.path, start=start, end=stop))
            start = stop
    return pieces


def _collect(upstream: Upstream, kind: str, pieces: Sequence[Utterance], target: Path, settings: dict[str, str],
             path: str) -> None:  # fmt: skip
    unfinished = target.with_name(f"{target.stem}.unfinished.safetensors")
    sums, done, frames = _resumed(unfinished)
    if done:
        say(f"{kind} of {path}: going on after {done} of {len(pieces)} pieces")
    upstream.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(upstream.parameters()).device
    sums = {name: tensor.to(device) for name, tensor in sums.items()}
    gather: Gather = KINDS[kind](upstream)
    saved = time.monotonic()
    seconds = [float(piece.end or 0.0) - piece.start for piece in pieces]
    total, so_far = round(sum(seconds)), sum(seconds[:done])
    try:
        with progress(f"{kind} of {path}", total, round(so_far)) as advance:
            for index in range(done, len(pieces)):
                piece = pieces[index]
                wave = load_audio(piece.path, piece.start, seconds[index]).to(device)
                draw = torch.Generator(device).manual_seed(tensor_seed(int(settings["seed"]), str(index)) >> 1)
                frames += gather(upstream, wave, draw, sums)
                done, so_far = index + 1, so_far + wave.numel() / SAMPLE_RATE
                advance(min(round(so_far), total), "s")
                if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                    _save(unfinished, sums, {"done": str(done), "frames": str(frames)})
                    saved = time.monotonic()
    except (KeyboardInterrupt, SpeechFTError):
        if done:
            _save(unfinished, sums, {"done": str(done), "frames": str(frames)})
        raise
    if not any(bool(tensor.any()) for tensor in sums.values()):
        raise SpeechFTError(f"{kind} of {path} is zero everywhere", "the corpus may be silent; give other speech")
    means = {name: tensor.double() / frames for name, tensor in sums.items()}
    scale = 1.0
    if kind == "fisher":
        scale = sum(float(mean.sum()) for mean in means.values()) / sum(mean.numel() for mean in means.values())
    about = {**settings, "frames": str(frames), "pieces": str(len(pieces)), "scale": repr(scale),
             "versions": json.dumps(versions())}  # fmt: skip
    _save(target, {name: (mean / scale).float() for name, mean in means.items()}, about)
    unfinished.unlink(missing_ok=True)


def _resumed(unfinished: Path) -> tuple[dict[str, Tensor], int, int]:
    if not unfinished.is_file():
        return {}, 0, 0
    reader = SafetensorsReader(unfinished)
    try:
        sums = {name: reader.read(name) for name in reader.names()}
        return sums, int(reader.metadata["done"]), int(reader.metadata["frames"])
    finally:
        reader.close()


def _save(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, about)


def fisher_gatherer(upstream: Upstream) -> Gather:
    """Squares of the gradient of an own draw's log-likelihood, for every weight."""
    parameters = _model(upstream).named_parameters()
    weights = {name: parameter.requires_grad_() for name, parameter in parameters if parameter.is_floating_point()}

    def gather(upstream: Upstream, wave: Tensor, draw: torch.Generator, sums: dict[str, Tensor]) -> int:
        last = upstream([wave], last_only=True).last
        noise = torch.randn(last.shape, generator=draw, device=last.device)
        # log N(z; f, 1) at z = f + noise has the gradient noise · ∂f.
        gradients = torch.autograd.grad((last * noise).sum(), list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if name not in sums:
                sums[name] = torch.zeros_like(weight, requires_grad=False)
            if gradient is not None:
                sums[name] += gradient.square()
        return int(last.shape[1])

    return gather


def regmean_gatherer(upstream: Upstream) -> Gather:
    """XᵀX of the inputs of every linear layer that is called as a module (WavLM's attention calls none of its own)."""
    present: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            if name not in present:
                present[name] = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
            present[name].addmm_(rows.T, rows)

        return hook

    for name, module in _model(upstream).named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(watch(f"{name}.weight"))

    def gather(upstream: Upstream, wave: Tensor, draw: torch.Generator, sums: dict[str, Tensor]) -> int:
        for name, tensor in sums.items():  # the sums may come from before an interruption
            present.setdefault(name, tensor)
        with torch.no_grad():
            last = upstream([wave], last_only=True).last
        sums.update(present)
        return int(last.shape[1])

    return gather


def _model(upstream: Upstream) -> nn.Module:
    """What a folder's weights fill: its names are the canonical ones."""
    model: nn.Module = getattr(upstream, "model")  # noqa: B009 (no upstream without weights comes here)
    return model


KINDS: dict[str, Callable[[Upstream], Gather]] = {"fisher": fisher_gatherer, "regmean": regmean_gatherer}
"""How each kind of statistics is gathered."""
