"""The loss of a training batch through the modules of s3prl's expert, without what its `forward` also does for its log.

That is a transfer to the host, Python lists and a decoded text for every utterance of every step. Dev and test sets go
through the expert's own `forward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


def sent(values: Any, device: torch.device) -> Tensor:
    """Whole numbers (lists, arrays) as an int64 tensor on the device; the host does not wait for a GPU."""
    tensor = torch.as_tensor(values, dtype=torch.int64)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def padded(rows: Sequence[Tensor]) -> Tensor:
    """`[frames, dim]` each -> `[batch, longest, dim]`, zeros behind the shorter ones.

    As torch's `pad_sequence`, which writes row by row into one tensor, so that each row's gradient takes as long as the
    whole batch: of 32 utterances on a CPU 18 times as long in all.
    """
    longest = max(len(row) for row in rows)
    return torch.stack([nn.functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])


def utterance_logits(expert: Any, features: Tensor) -> Tensor:
    """What an expert with mean pooling says of utterances: `[batch, dim]` means over time -> `[batch, classes]`.

    The mean of one frame is that frame, so s3prl's loop over utterances (`MeanPooling` in s3prl/downstream/model.py)
    is left out.
    """
    logits, _ = expert.model.post_net(expert.projector(features), None)
    assert isinstance(logits, Tensor)
    return logits


def ctc_loss(expert: Any, features: Tensor, counts: Sequence[int], labels: Sequence[Any], padding: int) -> Tensor:
    """As s3prl/downstream/ctc/expert.py and asr/expert.py have it.

    Args:
        features: `[rows, dim]`, the frames of all utterances one after the other.
        counts: frames of each.
        labels: token numbers of each.
        padding: the token behind the end of shorter labels (not part of the loss).
    """
    frames = torch.tensor(counts, dtype=torch.int32)
    tokens = torch.tensor([len(label) for label in labels], dtype=torch.int32)
    rows = [torch.as_tensor(label, dtype=torch.int64) for label in labels]
    targets = sent(pad_sequence(rows, batch_first=True, padding_value=padding), features.device)
    if hasattr(expert.model, "rnns"):
        whole = padded(features.split(list(counts)))
        logits, frames = expert.model(expert.projector(whole), frames)
        log_probs = nn.functional.log_softmax(logits, dim=-1).transpose(0, 1)
    else:  # frame by frame: no padding needs to be computed
        logits, _ = expert.model(expert.projector(features), None)
        log_probs = padded(nn.functional.log_softmax(logits, dim=-1).split(list(counts))).transpose(0, 1)
    loss = expert.objective(log_probs, targets, frames, tokens)
    assert isinstance(loss, Tensor)
    return loss
