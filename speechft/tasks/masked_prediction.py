"""HuBERT's masked prediction of cluster labels (2106.07447): pre-training, and continued pre-training on new speech.

The heads are new ones and thrown away, as every task's, so nothing but the mask embedding is asked of an upstream:
WavLM and wav2vec 2.0, whose checkpoints have it, are trained in the same way as HuBERT (wav2vec 2.0 by another
objective than its own, which is contrastive).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from speechft.data.augment import coloured, mixed
from speechft.data.loader import Batch
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.base import Task
from speechft.tasks.codebooks import regressed
from speechft.tasks.targets import Heard, make_targets
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet

_IGNORE = -100


class MaskedPrediction(Task):
    """Predict each frame's cluster where the input is masked, from several code books at once.

    Args:
        codebooks: see `targets.make_targets`; with an optional `weight` each, and `layer`: the hidden state it is
            predicted from (0 is what enters the first transformer layer; `mean` is the mean of all of them, which is
            what SUPERB's weighted sum starts from; the last one if not said). Supervision of layers below the last is
            ILS-SSL's (2112.08778). A code book with `regress` is met with the mean squared
            error over its components (which have unit variance); one vector for the utterance is predicted from the
            mean of the hidden state over time, which is what pooling heads see. With `clean: true` a code book is met
            only where the input was left as it is: for what an augmentation changes, such as the channel.
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
        self._clean = [bool(codebook.pop("clean", False)) for codebook in self._codebooks]
        layers = [codebook.pop("layer", None) for codebook in self._codebooks]
        self._layers: list[int | None] = [_layer_of(layer) for layer in layers]
        self._mask_fraction, self._mask_span, self._unmasked_weight = mask_fraction, mask_span, unmasked_weight
        self._mix_probability, self._mix_snr = mix_probability, (float(mix_snr[0]), float(mix_snr[1]))
        self._channel_probability, self._channel_strength, self._seed = channel_probability, channel_strength, seed
        self._targets: list[dict[str, np.ndarray] | Heard] = []

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        if upstream.identity.chunk_seconds:
            raise UsageError("masked prediction hears whole utterances", "leave upstream.chunk_seconds out")
        if not hasattr(upstream, "model") or not hasattr(upstream.model, "masked_spec_embed"):
            raise SpeechFTError(
                f"{upstream.identity.name} has no mask embedding, so nothing can be masked",
                "choose HuBERT, WavLM, wav2vec 2.0 or UniSpeech-SAT, from a checkpoint that has masked_spec_embed",
            )
        for layer in self._layers:
            if layer is not None and not -1 <= layer < upstream.num_layers:
                raise UsageError(
                    f"a code book's layer is {layer}",
                    f"this upstream has hidden states 0 to {upstream.num_layers - 1}; leave it out for the last one",
                )
        from lhotse import CutSet

        everything = CutSet.from_cuts([*train, *(dev or [])])
        self._targets = make_targets(everything, self._codebooks, self._seed, upstream.first_centre, own=upstream)
        # One head for each code book: its parts side by side. Vectors are parts without clusters.
        self._shapes = [
            (regressed(book), 1) if book.get("regress") else (int(book.get("splits", 1)), int(book["clusters"]))
            for book in self._codebooks
        ]
        self.heads = nn.ModuleList(nn.Linear(upstream.dim, splits * clusters) for splits, clusters in self._shapes)

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        masked_loss, plain_loss, counts = self._losses(upstream, batch, augment=True)
        loss = masked_loss + self._unmasked_weight * plain_loss
        return loss, {
            "masked_loss": float(masked_loss.detach()),
            "masked_accuracy": 100 * counts[0] / max(1, counts[1]),
        }

    def score(self, upstream: Upstream, batch: Batch) -> list[tuple[int, int, float]]:
        """Frames that are right, frames counted, and the loss of the batch."""
        masked_loss, _, (right, total) = self._losses(upstream, batch, augment=False)
        return [(right, total, float(masked_loss.detach()))]

    def summary(self, scores: Sequence[tuple[int, int, float]]) -> dict[str, float]:
        right, total, loss = (sum(column) for column in zip(*scores, strict=True))
        return {"masked_accuracy": 100 * right / max(1, total), "masked_loss": loss / len(scores)}

    def _losses(self, upstream: Any, batch: Batch, augment: bool) -> tuple[Tensor, Tensor, tuple[int, int]]:
        waves = batch.waves
        if augment and self._mix_probability:
            waves = mixed(waves, self._mix_probability, self._mix_snr)
        if augment and self._channel_probability:
            waves = coloured(waves, self._channel_probability, self._channel_strength)
        with torch.autocast(waves[0].device.type, enabled=False):  # a trainable CNN overflows in half precision
            features, lengths = upstream.features(waves)
        frames = upstream.frame_counts(lengths)
        hidden = upstream.project(features)
        valid = torch.arange(hidden.shape[1], device=hidden.device) < frames[:, None]
        masked = self._spans(frames, hidden.shape[1]) & valid
        hidden = torch.where(masked[:, :, None], upstream.model.masked_spec_embed.to(hidden.dtype), hidden)
        states = upstream.encode(hidden, frames, last_only=set(self._layers) == {-1})
        mean = torch.stack(list(states)).mean(0) if None in self._layers else None

        # Masked and plain frames go through a head together; each kind has a mean of its own.
        masked_loss = plain_loss = hidden.new_zeros((), dtype=torch.float32)
        right = total = 0
        # Without a weight on the plain ones, the heads need not see them.
        seen = valid if self._unmasked_weight else masked
        covered = masked[seen][:, None]  # [frames of the batch, 1]
        same = torch.tensor([new is old for new, old in zip(waves, batch.waves, strict=True)], device=hidden.device)
        untouched = same[:, None].expand_as(seen)[seen][:, None]
        measured: dict[int, list[Any]] = {}
        for book, (head, weight, layer) in enumerate(zip(self.heads, self._weights, self._layers, strict=True)):
            state = states[layer] if layer is not None else cast("Tensor", mean)
            if self._codebooks[book].get("regress"):
                errors, counted = self._errors(book, head, state, batch.cuts, waves, measured, valid, seen)
                if self._clean[book]:
                    counted = counted & untouched[:, 0]
                masked_loss = masked_loss + weight * _mean(errors, counted & covered[:, 0])
                plain_loss = plain_loss + weight * _mean(errors, counted & ~covered[:, 0])
                continue
            clusters = self._shapes[book][1]
            labels = self._labels(book, batch.cuts, hidden.shape[1]).to(hidden.device)[seen]  # [frames, splits]
            logits = head(state[seen]).float().view(-1, clusters)
            flat = functional.cross_entropy(logits, labels.flatten(), ignore_index=_IGNORE, reduction="none")
            losses, known = flat.view_as(labels), labels != _IGNORE
            if self._clean[book]:
                known = known & untouched
            masked_loss = masked_loss + weight * _mean(losses, known & covered)
            plain_loss = plain_loss + weight * _mean(losses, known & ~covered)
            if book == 0:
                hits = logits.detach().argmax(-1).view_as(labels) == labels
                right, total = int((hits & known & covered).sum()), int((known & covered).sum())
        scale = sum(self._weights)
        return masked_loss / scale, plain_loss / scale, (right, total)

    def _errors(
        self, book: int, head: nn.Module, state: Tensor, cuts: Sequence[Any], waves: Sequence[Tensor],
        measured: dict[int, list[Any]], valid: Tensor, seen: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Squared errors of vectors, mean over components: `[frames that are seen]`, and which of them count."""
        known, kept = torch.zeros_like(valid), self._targets[book]
        targets = kept(waves, measured) if isinstance(kept, Heard) else [kept[cut.id] for cut in cuts]
        if "context" in self._codebooks[book] and self._codebooks[book]["context"] is None:
            mean = (state * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)
            wanted = torch.stack([torch.from_numpy(own[0]) for own in targets])
            errors = (head(mean).float() - wanted.to(mean.device).float()).square().mean(1)
            # an utterance counts by its frames, masked or not
            return errors[:, None].expand_as(valid)[seen], torch.ones_like(valid)[seen]
        wanted = state.new_zeros(*valid.shape, self._shapes[book][0], dtype=torch.float32)
        for row, frames in enumerate(targets):
            own = torch.from_numpy(frames[: valid.shape[1]])
            wanted[row, : len(own)], known[row, : len(own)] = own.to(wanted.device).float(), True
        errors = (head(state[seen]).float() - wanted[seen]).square().mean(1)
        return errors, known[seen]

    def _labels(self, book: int, cuts: Sequence[Any], length: int) -> Tensor:
        """`[batch, frames, splits]` int64; where a cut has none, they are ignored."""
        labels = torch.full((len(cuts), length, self._shapes[book][0]), _IGNORE, dtype=torch.long)
        targets = self._targets[book]
        assert not isinstance(targets, Heard)
        for row, cut in enumerate(cuts):
            own = targets[cut.id][:length]
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


def _layer_of(layer: Any) -> int | None:
    """Which hidden state; None is the mean of all."""
    if layer == "mean":
        return None
    if layer is not None and (isinstance(layer, bool) or not isinstance(layer, int)):
        raise UsageError(f"a code book's layer is {layer!r}", "give a number, or mean")
    return -1 if layer is None else layer


def _mean(losses: Tensor, where: Tensor) -> Tensor:
    """Mean over chosen places; 0 when there is none."""
    return (losses * where).sum() / where.sum().clamp(min=1)
