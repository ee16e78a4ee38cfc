"""How alike the hidden states of two upstreams are, layer by layer: linear CKA, cosine, relative L2.

Sums over frames are enough for all three, so audio streams through, and every valid frame counts once, however
utterances are batched. Speech-FT (2502.12672) asks so how much of the pre-trained features a fine-tuned model keeps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.base import Hidden, Upstream
from speechft.upstreams.together import Together

BATCH_SECONDS = 60.0
"""Seconds of audio, padding included, that are heard at once."""

Progress = Callable[[float], None]
"""Called after every batch with the seconds of audio heard so far."""


def layer_similarity(
    first: Upstream,
    second: Upstream,
    waves: Iterable[Tensor],
    batch_seconds: float = BATCH_SECONDS,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Compare every hidden state of two upstreams on some audio; the arguments are those of `layer_similarities`.

    Returns:
        A dictionary per hidden state, as `LayerSums.result` gives it.
    """
    return layer_similarities(first, [second], waves, batch_seconds, device, progress)[0]


def layer_similarities(
    first: Upstream,
    others: Sequence[Upstream],
    waves: Iterable[Tensor],
    batch_seconds: float = BATCH_SECONDS,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> list[list[dict[str, Any]]]:
    """Compare every hidden state of several upstreams with that of the first one, which hears the audio once for all.

    A CNN that they have in common, as merged models have theirs with the pre-trained one, is run once for all too.

    Args:
        first: what is compared with (the pre-trained upstream).
        others: upstreams with as many hidden states, at the same frame rate.
        waves: 1-D float waveforms at 16 kHz; neighbours of similar length are heard fastest.
        batch_seconds: padded seconds of audio in a batch at most (a longer waveform is a batch of its own).
        device: where to compute; the upstreams are moved there. They are heard in evaluation mode.
        progress: see `Progress`.

    Returns:
        For each of the others a list with a dictionary per hidden state, as `LayerSums.result` gives it.

    Raises:
        UsageError: the upstreams do not have as many hidden states.
        SpeechFTError: different numbers of frames, features that are not finite, or no audio.
    """
    for other in others:
        if other.num_layers != first.num_layers:
            raise UsageError(
                f"{other.identity.name} has {other.num_layers} hidden states, {first.identity.name} {first.num_layers}",
                "compare models of one architecture",
            )
    models = [first, *others]
    # What the sums need in float64, not every accelerator has.
    place = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
    sums = [LayerSums(len(others), place) for _ in range(first.num_layers)]
    alone = any(model.identity.padding != "own" for model in models)  # there padding changes the features
    seconds = 0.0
    together = Together(models)
    with _evaluating(models, device), torch.inference_mode():
        for batch in batched(waves, 0.0 if alone else batch_seconds):
            heard = list(together([wave.to(device) for wave in batch]))
            _check_frames(models, heard)
            frames = heard[0].frames
            for layer, own in enumerate(sums):
                own.add([valid_rows(hidden.states[layer], frames).to(place) for hidden in heard])
            seconds += sum(wave.numel() for wave in batch) / 16_000
            if progress is not None:
                progress(seconds)
    if not seconds:
        raise SpeechFTError("there is no audio to compare the models on", "give a folder with audio files")
    for layer, own in enumerate(sums):
        if not own.finite:
            raise SpeechFTError(f"features of hidden state {layer} are not finite", "the weights of a model are broken")
    return [[{"layer": layer, **own.result(number)} for layer, own in enumerate(sums)] for number in range(len(others))]


class LayerSums:
    """What of one layer's frames must be kept to compare models: counts, means, and centred second moments.

    Moments of a batch are taken about the batch's own mean and joined (Chan, Golub and LeVeque 1979), all in float64:
    features far from zero lose no digits.

    Args:
        others: how many models are compared with the first.
        device: where the sums are.
    """

    def __init__(self, others: int, device: str | torch.device = "cpu") -> None:
        self._others, self._device = others, device
        self.frames = 0
        self._means: list[Tensor] = []
        self._moments: dict[tuple[int, int], Tensor] = {}
        self._cosines = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(others)]
        self._changes = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(others)]
        self._square = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, rows: Sequence[Tensor]) -> None:
        """Frames of every model, the first one's first: each `[frames, dim]`, dimensions may differ."""
        values = [one.to(self._device, torch.float64) for one in rows]
        count = len(values[0])
        if count == 0:
            return
        if not self._means:
            dims = [one.shape[1] for one in values]
            self._means = [one.new_zeros(dim) for one, dim in zip(values, dims, strict=True)]
            pairs = [(0, 0), *((0, n) for n in range(1, len(dims))), *((n, n) for n in range(1, len(dims)))]
            self._moments = {(i, j): values[0].new_zeros(dims[i], dims[j]) for i, j in pairs}
        means = [one.mean(0) for one in values]
        centred = [one - mean for one, mean in zip(values, means, strict=True)]
        steps = [new - old for new, old in zip(means, self._means, strict=True)]
        total = self.frames + count
        for (i, j), moment in self._moments.items():
            moment.addmm_(centred[i].T, centred[j])
            moment.addr_(steps[i], steps[j], alpha=self.frames * count / total)
        for mean, step in zip(self._means, steps, strict=True):
            mean.add_(step, alpha=count / total)
        self._square += values[0].square().sum()
        for number, other in enumerate(values[1:]):
            if other.shape == values[0].shape:
                self._cosines[number] += _cosines(values[0], other).sum()
                self._changes[number] += (other - values[0]).square().sum()
        self.frames = total

    @property
    def finite(self) -> bool:
        """Whether every feature so far was a finite number."""
        return all(bool(moment.isfinite().all()) for moment in self._moments.values())

    def result(self, number: int) -> dict[str, Any]:
        """The comparison of one of the others (counted from 0) with the first.

        Returns:
            `cka`: linear CKA of the centred frames, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) (Kornblith et al. 2019, 1905.00414,
            equation 4 on features), 0 to 1, None where one side does not vary; `cosine`: mean over frames of the
            cosine of the two vectors; `relative_l2`: ‖Y − X‖ / ‖X‖ over all frames, X the first (both None where
            dimensions differ); `frames`: how many.
        """
        cka = cosine = change = None
        if self.frames:
            own, cross, theirs = (
                float(torch.linalg.matrix_norm(self._moments[pair]))
                for pair in ((0, 0), (0, number + 1), (number + 1, number + 1))
            )
            cka = min(1.0, cross / own * (cross / theirs)) if own and theirs else None
            if self._means[0].shape == self._means[number + 1].shape:
                cosine = float(self._cosines[number]) / self.frames
                square = float(self._square)
                change = math.sqrt(float(self._changes[number]) / square) if square else None
        return {"cka": cka, "cosine": cosine, "relative_l2": change, "frames": self.frames}


def _cosines(ours: Tensor, theirs: Tensor) -> Tensor:
    """`[frames, dim]` twice -> `[frames]`; where a vector is 0, 1 if both are and 0 otherwise."""
    norms = ours.norm(dim=1) * theirs.norm(dim=1)
    same = (ours == theirs).all(dim=1).to(ours.dtype)
    return torch.where(norms > 0, (ours * theirs).sum(1) / norms.clamp(min=torch.finfo(ours.dtype).tiny), same)


def valid_rows(state: Tensor, frames: Tensor) -> Tensor:
    """The frames that are no padding: `[batch, frames, dim]` and `[batch]` counts -> `[sum of counts, dim]`."""
    mask = torch.arange(state.shape[1], device=state.device)[None, :] < frames.to(state.device)[:, None]
    return state[mask]


def batched(waves: Iterable[Tensor], seconds: float) -> Iterator[list[Tensor]]:
    """Neighbouring waveforms together as long as they, padded, are no more than so many seconds; at least one."""
    batch: list[Tensor] = []
    longest = 0
    for wave in waves:
        longest = max(longest, wave.numel())
        if batch and (len(batch) + 1) * longest > seconds * 16_000:
            yield batch
            batch, longest = [], wave.numel()
        batch.append(wave)
    if batch:
        yield batch


@contextlib.contextmanager
def _evaluating(models: Sequence[Upstream], device: str | torch.device) -> Iterator[None]:
    """Without dropout, on the device; training mode is given back at the end."""
    before = [model.training for model in models]
    for model in models:
        model.eval().to(device)
    try:
        yield
    finally:
        for model, training in zip(models, before, strict=True):
            model.train(training)


def _check_frames(models: Sequence[Upstream], heard: Sequence[Hidden]) -> None:
    for model, hidden in zip(models[1:], heard[1:], strict=True):
        if not torch.equal(hidden.frames.cpu(), heard[0].frames.cpu()):
            raise SpeechFTError(
                f"{model.identity.name} gives {hidden.frames.tolist()[0]} frames where {models[0].identity.name} gives "
                f"{heard[0].frames.tolist()[0]}",
                "compare models with the same frames",
            )
