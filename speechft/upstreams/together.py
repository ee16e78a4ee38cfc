"""Several upstreams that hear the same batch: a CNN that they share (fine-tuning leaves it frozen, and so does merging)
is run once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from speechft.upstreams.base import Hidden, Upstream, checked_waveforms
from speechft.upstreams.speech_encoder import SpeechEncoder


class Together:
    """Upstreams to be run one after the other on each batch.

    Each gives the bits that it gives alone: the shared output is what its own CNN makes of this very batch.

    Args:
        upstreams: any; those with the same CNN, input normalisation and padding share it. Weights must not change.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = list(upstreams)
        keys = [_shared_key(upstream) if len(upstreams) > 1 else None for upstream in upstreams]
        self._keys = [key if keys.count(key) > 1 else None for key in keys]

    def __call__(self, waveforms: Sequence[Tensor], chosen: Sequence[int] | None = None) -> Iterator[Hidden]:
        """Hidden states of each upstream in turn, computed as they are asked for.

        Args:
            waveforms: as of `Upstream`.
            chosen: numbers of the upstreams that are wanted; None for all.

        Raises:
            UsageError: as `Upstream`.
        """
        waveforms = checked_waveforms(waveforms)
        heard: dict[str, tuple[Tensor, Tensor]] = {}
        for number in range(len(self.upstreams)) if chosen is None else chosen:
            upstream, key = self.upstreams[number], self._keys[number]
            if key is None or not isinstance(upstream, SpeechEncoder):
                yield upstream(waveforms)
                continue
            if key not in heard:
                heard[key] = upstream.features(waveforms)
            yield upstream.after_cnn(*heard[key])


def _shared_key(upstream: Upstream) -> str | None:
    key = upstream.cnn_key()
    return None if key is None else f"{key}-{upstream.identity.padding}"
