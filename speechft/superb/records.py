"""Reading an expert's scores: experts report to a tensorboard writer, so a listener takes its place."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from speechft.errors import SpeechFTError


def seed_all(seed: int) -> None:
    """Seed every generator s3prl draws from (s3prl/run_downstream.py and `Runner.evaluate`)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


class Diverged(SpeechFTError):
    """A loss is no number any more."""


def diverged(task: str, step: int) -> Diverged:
    """What to say then."""
    return Diverged(f"the loss of {task} is NaN at step {step}", f"lower superb.{task}.lr")


class Scores:
    """Stands where the expert expects its writer.

    Args:
        task: for messages.
        logger: passed every scalar too, if given.
    """

    def __init__(self, task: str, logger: Any = None) -> None:
        self.task = task
        self.logger = logger
        self.values: dict[str, float] = {}

    def add_scalar(self, tag: str, value: Any, global_step: int = 0, **kwargs: Any) -> None:
        """`ctc-libriphone/dev-per` -> `values["dev-per"]`.

        Raises:
            SpeechFTError: a loss that is NaN.
        """
        name = tag.split("/", 1)[-1]
        self.values[name] = float(value)
        if name.endswith("loss") and math.isnan(float(value)):
            raise diverged(self.task, global_step)
        if self.logger is not None:
            self.logger.add_scalar(tag, value, global_step=global_step, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # other calls of a writer (add_text, add_audio) go to the real one, or nowhere
        if name.startswith("add_"):
            return getattr(self.logger, name) if self.logger is not None else lambda *_, **__: None
        raise AttributeError(name)

    def of(self, split: str) -> dict[str, float]:
        """Metrics of one split without the split's name: `{"per": ..., "loss": ...}`."""
        return {
            name.removeprefix(f"{split}-"): value for name, value in self.values.items() if name.startswith(f"{split}-")
        }


def layer_weights(featurizer: Any) -> list[float]:
    """The learned weight of each hidden state (they sum to 1); one layer needs none."""
    weights: Mapping[str, Any] = dict(featurizer.named_parameters())
    if "weights" not in weights:
        return [1.0]
    return [float(value) for value in weights["weights"].detach().softmax(dim=-1).tolist()]
