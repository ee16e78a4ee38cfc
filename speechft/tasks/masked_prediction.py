"""HuBERT's masked prediction of cluster labels (2106.07447): pre-training, and continued pre-training on new speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from speechft.data.augment import coloured, mixed
from speechft.data.loader import Batch
from speechft.errors import SpeechFTError
from speechft.tasks.base import Task
from speechft.tasks.targets import make_targets
from speechft.upstreams.base import Upstream, pad_waveforms

if TYPE_CHECKING:
    from lhotse import CutSet

_IGNORE = -100


class MaskedPrediction(Task):
    """Predict each frame's cluster where the input is masked, from several code books at once.

    Args:
        codebooks: see `targets.make_targets`; with an optional `weight` each.
        mask_fraction: share of frames to cover (spans may overlap, so a little less is covered).
        mask_span: frames in a span (20 ms each).
        unmasked_weight: weight of the loss on frames that are not masked (0 is HuBERT's; above 0 small models start
            sooner).
        mix_probability: how often another utterance of the batch is added to the input while the labels stay (WavLM,
            2110.13900, section III-B): teaches which speaker is meant.
        mix_snr: range in dB of the utterance over what is added.
        channel_probability: how often the input passes through a random frequency response while the labels stay.
        channel_strength: see `augment.coloured`.
        seed: of the clustering.
    """

    name, metric, higher_is_better = "masked_prediction", "masked_accuracy", True

    def __init__(self, codebooks: Sequence[Mapping[str, Any]], mask_fraction: float = 0.4, mask_span: int = 6,
                 unmasked_weight: float = 0.5, mix_probability: float = 0.0, mix_snr: Sequence[float] = (0.0, 20.0),
                 channel_probability: float = 0.0, channel_strength: float = 1.0, seed: int = 0) -> None:  # fmt: skip
        super().__init__()
        self._codebooks = [dict(codebook) for codebook in codebooks]
        self._weights = [float(codebook.pop("weight", 1.0)) for codebook in self._codebooks]
        self._mask_fraction, self._mask_span, self._unmasked_weight = mask_fraction, mask_span, unmasked_weight
        self._mix_probability, self._mix_snr = mix_probability, (float(mix_snr[0]), float(mix_snr[1]))
        self._channel_probability, self._channel_strength, self._seed = channel_probability, channel_strength, seed
        self._targets: list[dict[str, np.ndarray]] = []

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        if not hasattr(upstream, "model") or not hasattr(upstream.model, "masked_spec_embed"):
            raise SpeechFTError(
                "this upstream has no mask embedding", "masked prediction needs a pre-training checkpoint"
            )
        from lhotse import CutSet

        everything = CutSet.from_cuts([*train, *(dev or [])])
        first = upstream.first_centre
        self._targets = [make_targets(everything, codebook, self._seed, first) for codebook in self._codebooks]
        # One head for each part of each code book; the parts of a code book share its weight.
        shapes = [(int(book["clusters"]), int(book.get("splits", 1))) for book in self._codebooks]
        self._parts = [(number, part) for number, (_, splits) in enumerate(shapes) for part in range(splits)]
        self._weights = [self._weights[number] / shapes[number][1] for number, _ in self._parts]
        self.heads = nn.ModuleList(nn.Linear(upstream.dim, shapes[number][0]) for number, _ in self._parts)

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        masked_loss, plain_loss, counts = self._losses(upstream, batch, augment=True)
        loss = masked_loss + self._unmasked_weight * plain_loss
        return loss, {
            "masked_loss": float(masked_loss.detach()),
            "masked_accuracy": 100 * counts[0] / max(1, counts[1]),
        }

    def evaluate(self, upstream: Upstream, batches: Iterable[Batch]) -> dict[str, float]:
        right = total = 0
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)  # the same masks at every evaluation
            for batch in batches:
                masked_loss, _, counts = self._losses(upstream, batch, augment=False)
                right, total = right + counts[0], total + counts[1]
                losses.append(float(masked_loss))
        return {"masked_accuracy": 100 * right / max(1, total), "masked_loss": sum(losses) / len(losses)}

    def _losses(self, upstream: Any, batch: Batch, augment: bool) -> tuple[Tensor, Tensor, tuple[int, int]]:
        waves = batch.waves
        if augment and self._mix_probability:
            waves = mixed(waves, self._mix_probability, self._mix_snr)
        if augment and self._channel_probability:
            waves = coloured(waves, self._channel_probability, self._channel_strength)
        padded, lengths = pad_waveforms(waves, upstream._minimum, upstream.identity.normalize)
        frames = upstream.frame_counts(lengths)
        with torch.autocast(padded.device.type, enabled=False):  # a trainable CNN overflows in half precision
            features = upstream.cnn(padded, lengths)
        hidden = upstream.project(features)
        valid = torch.arange(hidden.shape[1], device=hidden.device) < frames[:, None]
        masked = self._spans(frames, hidden.shape[1]) & valid
        hidden = torch.where(masked[:, :, None], upstream.model.masked_spec_embed.to(hidden.dtype), hidden)
        last = upstream.encode(hidden, frames, last_only=True)[-1]

        at_masked, at_plain = last[masked], last[valid & ~masked]
        masked_loss = plain_loss = last.new_zeros((), dtype=torch.float32)
        right = total = 0
        for head, weight, (book, part) in zip(self.heads, self._weights, self._parts, strict=True):
            labels = self._labels(book, part, batch.cuts, hidden.shape[1]).to(hidden.device)
            logits = head(at_masked).float()
            masked_loss = masked_loss + weight * _cross_entropy(logits, labels[masked])
            if self._unmasked_weight:
                plain_loss = plain_loss + weight * _cross_entropy(head(at_plain).float(), labels[valid & ~masked])
            if book == 0 and part == 0:
                known = labels[masked] != _IGNORE
                right = int(((logits.argmax(-1) == labels[masked]) & known).sum())
                total = int(known.sum())
        scale = sum(self._weights)
        return masked_loss / scale, plain_loss / scale, (right, total)

    def _labels(self, book: int, part: int, cuts: Sequence[Any], length: int) -> Tensor:
        labels = torch.full((len(cuts), length), _IGNORE, dtype=torch.long)
        for row, cut in enumerate(cuts):
            own = self._targets[book][cut.id][:length, part]
            labels[row, : len(own)] = torch.from_numpy(own.astype(np.int64))
        return labels

    def _spans(self, frames: Tensor, length: int) -> Tensor:
        """A random mask `[batch, frames]`: enough spans to cover the wanted share if none overlapped."""
        spans = max(1, round(self._mask_fraction * length / self._mask_span))
        starts = (torch.rand(len(frames), spans, device=frames.device) * frames[:, None]).long()
        offsets = torch.arange(self._mask_span, device=frames.device)
        places = (starts[:, :, None] + offsets).clamp(max=length - 1).flatten(1)
        # Short utterances of a batch would get the longest one's number of spans: keep each one's own share.
        allowed = (frames.float() / length * spans).round().clamp(min=1)
        kept = (torch.arange(spans, device=frames.device) < allowed[:, None]).repeat_interleave(self._mask_span, dim=1)
        mask = torch.zeros(len(frames), length, dtype=torch.int32, device=frames.device)
        return mask.scatter_add_(1, places, kept.int()) > 0


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over known labels; 0 when there is none."""
    total = functional.cross_entropy(logits, labels, ignore_index=_IGNORE, reduction="sum")
    return total / (labels != _IGNORE).sum().clamp(min=1)
