"""Memory: layers computed twice instead of kept, and what to do when it is not enough."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from speechft.data.loader import Batch
from speechft.errors import SpeechFTError
from speechft.upstreams.base import Upstream

_SIGNS = ("out of memory", "defaultcpuallocator", "can't allocate memory")


def recompute_layers(upstream: Upstream) -> None:
    """Gradient checkpointing (1604.06174): of each transformer layer only the input is kept, and the backward pass
    computes the rest again, with the same dropout. The numbers are the same; a step takes about a third longer."""
    for layer in upstream.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def explained(error: RuntimeError, when: str, options: Mapping[str, Any], batch: Batch | None) -> Exception:
    """An out-of-memory error with the batch that was too large, and what to change; any other error as it is.

    Args:
        error: torch's.
        when: such as `at step 5`, or `in an evaluation`.
        options: the `trainer` group.
        batch: what was being computed; None where it was an update of the weights.
    """
    if not any(sign in str(error).lower() for sign in _SIGNS) and "OutOfMemory" not in type(error).__name__:
        return error
    goes_on = "the run goes on from its last checkpoint"
    if batch is None:  # the first update of the unfrozen upstream makes the optimizer's state
        advice = "a smaller batch with a higher trainer.accumulate (and allow_changed_config=true), or a larger device"
        return SpeechFTError(
            f"out of memory {when}, by the optimizer's state of all weights",
            f"{advice}: {goes_on}; or a new run with strategy=lora",
        )
    longest = max(wave.numel() for wave in batch.waves) / 16_000
    size = (
        f"out of memory {when} with a batch of {len(batch.waves)} utterances, {batch.seconds:.1f} s of audio "
        f"({longest * len(batch.waves):.1f} s padded to the longest, {longest:.1f} s)"
    )
    if not torch.is_grad_enabled():
        return SpeechFTError(size, f"lower trainer.eval_seconds, which is {options['eval_seconds']:g}; {goes_on}")
    choices = [
        "" if options["gradient_checkpointing"] else "trainer.gradient_checkpointing=true",
        "trainer.precision=bf16" if options["precision"] == "no" else "",
        "smaller batches (data.batch_seconds or data.batch_size) with a higher trainer.accumulate",
        "data without its longest utterances (max_seconds)" if longest > 20 else "",
    ]
    allowed = "" if options["gradient_checkpointing"] else "; all but the first with allow_changed_config=true"
    allowed = allowed or " with allow_changed_config=true"
    return SpeechFTError(size, f"try {', or '.join(word for word in choices if word)}: {goes_on}{allowed}")
