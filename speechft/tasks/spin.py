"""Spin, speaker-invariant clustering (Chang, Liu, Glass, 2305.11072; code: github.com/vectominist/spin).

An utterance is heard twice, as it is and in another voice. Both times a frame's last hidden state h becomes
z = Wh / ‖Wh‖, and is compared with K code words c_k of length 1:

    p(k | z) = exp(z·c_k / τ) / Σ_j exp(z·c_j / τ)

The targets q(k | z) are p with τ = ε, smoothed so that over the B frames of a batch every code word is used equally:
the matrix exp(z_b·c_k / ε) is scaled by turns until its columns sum to B / K and its rows to 1 (Sinkhorn and Knopp, as
SwAV does, 2006.09882). Each hearing predicts the other's targets (the paper's equation 3):

    L = -1/2B Σ_b Σ_k q(k | z'_b) log p(k | z_b)  -  1/2B Σ_b Σ_k q(k | z_b) log p(k | z'_b)

What is the same in both hearings, the words, can be predicted; the voice cannot. The paper trains the last two layers
only: with all of them, it says, the model learns to ignore its input. That is the strategy's business
(`strategy.frozen_parts`); `perplexity` shows it: it falls to 1 when one code word is left.

As in the published code (its `src/nn/swav_vq_dis.py`, `src/model/spin.py`, `config/spin.yaml`): the loss with soft
targets, one affine W to 256 dimensions, all defaults. Not as there: of several processes each scales its own batch, so
that they train as one does with `trainer.accumulate` (there Sinkhorn's sums are over all of them); code words get their
length 1 before a step's loss instead of after it, and the voice is changed by other means (`data/voices.py`), without
Praat's change of how far the pitch moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechft.data.augment import coloured
from speechft.data.loader import Batch
from speechft.data.voices import other_voices
from speechft.errors import UsageError
from speechft.tasks.base import Task
from speechft.upstreams.base import Upstream

if TYPE_CHECKING:
    from lhotse import CutSet


class Spin(Task):
    """Swapped prediction of code words between an utterance and itself in another voice.

    Args:
        codewords: K; the paper has 128 to 2048.
        dim: size of z.
        temperature: τ.
        epsilon: ε; the smaller, the sharper the targets.
        iterations: of the scaling.
        pitch_range, formant_range: see `voices.other_voices`.
        channel_strength: the other voice also passes through a random frequency response (`augment.coloured`); 0: none.
            At 0.7 its spread over frequency is that of the published equaliser (4.1 dB from 100 to 7000 Hz).
    """

    name, metric = "spin", "spin_loss"

    def __init__(self, codewords: int = 256, dim: int = 256, temperature: float = 0.1, epsilon: float = 0.02,
                 iterations: int = 3, pitch_range: float = 2.0, formant_range: float = 1.4,
                 channel_strength: float = 0.7) -> None:  # fmt: skip
        super().__init__()
        for key, value in (("codewords", codewords - 1), ("dim", dim), ("temperature", temperature),
                           ("epsilon", epsilon), ("iterations", iterations)):  # fmt: skip
            if not value > 0:
                raise UsageError(f"task.{key} is too small", "the paper's values are in configs/task/spin.yaml")
        other_voices([], pitch_range, formant_range)  # impossible ranges show now
        self._codewords, self._dim = codewords, dim
        self._temperature, self._epsilon, self._iterations = temperature, epsilon, iterations
        self._ranges, self._channel_strength = (pitch_range, formant_range), channel_strength

    def prepare(self, upstream: Upstream, train: CutSet, dev: CutSet | None, folder: Path) -> None:
        del train, dev, folder  # nothing but audio is needed
        self.project = nn.Linear(upstream.dim, self._dim)
        self.codebook = nn.Linear(self._dim, self._codewords, bias=False)
        self._normalise()

    @torch.no_grad()
    def _normalise(self) -> None:
        self.codebook.weight.copy_(functional.normalize(self.codebook.weight, dim=1))

    def _cosines(self, upstream: Upstream, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """z·c_k of every frame, as it is and in another voice: two tensors `[frames of the batch, K]`."""
        others = other_voices(waves, *self._ranges)
        if self._channel_strength:
            others = coloured(others, 1.0, self._channel_strength)
        hidden = upstream([*waves, *others], last_only=True)
        frames = hidden.frames[: len(waves)]  # the other voice is as long
        states = hidden.last.unflatten(0, (2, len(waves)))
        valid = torch.arange(states.shape[2], device=states.device) < frames[:, None]
        places = functional.normalize(self.project(states[:, valid]).float(), dim=-1)  # [2, frames of the batch, dim]
        with torch.autocast(places.device.type, enabled=False):
            first, second = self.codebook(places)
        return first, second

    def _compare(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, both hearings' targets `[2, frames, K]` and log p `[2, frames, K]`."""
        both = torch.stack([first, second])
        with torch.no_grad():
            targets = torch.stack([
                sinkhorn(part, self._epsilon, self._iterations) for part in both.detach()
            ])  # fmt: skip
        logs = (both / self._temperature).log_softmax(-1)
        return -(targets.flip(0) * logs).sum(-1).mean(), targets, logs

    def step(self, upstream: Upstream, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        self._normalise()  # after the last update: code words keep length 1
        loss, targets, logs = self._compare(*self._cosines(upstream, batch.waves))
        hits, used = _agreement(targets, logs.detach(), self._codewords)
        return loss, {"spin_accuracy": 100 * float(hits.float().mean()), "perplexity": _perplexity(used)}

    def score(self, upstream: Upstream, batch: Batch) -> list[tuple[int, float, int, list[int]]]:
        """Frames, the sum of their losses, how often the other hearing's code word is found, and each one's uses."""
        self._normalise()
        loss, targets, logs = self._compare(*self._cosines(upstream, batch.waves))
        hits, used = _agreement(targets, logs, self._codewords)
        return [(hits.numel(), float(loss) * hits.numel(), int(hits.sum()), used.tolist())]

    def summary(self, scores: Sequence[tuple[int, float, int, list[int]]]) -> dict[str, float]:
        """`spin_loss` (log K is chance), `spin_accuracy` in percent, `perplexity` of the use of code words."""
        frames, losses, hits, used = zip(*scores, strict=True)
        return {
            "spin_loss": sum(losses) / sum(frames),
            "spin_accuracy": 100 * sum(hits) / sum(frames),
            "perplexity": _perplexity(torch.tensor(used).sum(0)),
        }


@torch.no_grad()
def sinkhorn(cosines: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Targets from cosines: every code word used equally, every frame's targets summing to 1.

    Args:
        cosines: `[frames, codewords]`, from -1 to 1.
        epsilon: of the module's docstring.
        iterations: how often columns, then rows are scaled.

    Returns:
        `[frames, codewords]` float32.
    """
    plan = ((cosines.double() - 1) / epsilon).exp()
    for _ in range(iterations):
        plan = plan / plan.sum(0).clamp(min=1e-300)  # the columns' own sum does not matter: rows come last
        plan = plan / plan.sum(1, keepdim=True).clamp(min=1e-300)
    return plan.float()


def _agreement(targets: Tensor, logs: Tensor, codewords: int) -> tuple[Tensor, Tensor]:
    """Where a hearing's best code word is the other's target, `[2, frames]`; how often each is the best, `[K]`."""
    best = logs.argmax(-1)
    return best == targets.flip(0).argmax(-1), torch.bincount(best.flatten(), minlength=codewords)


def _perplexity(used: Tensor) -> float:
    """exp of the entropy of the use of code words: as many as are used, if all of them are used equally."""
    shares = used.double() / used.sum()
    return float(torch.special.entr(shares).sum().exp())
