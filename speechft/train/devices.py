"""Several processes of one run (`torchrun`, `accelerate launch`): what they agree on, and shared gradients."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from speechft.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Value = TypeVar("Value")


def count() -> int:
    """How many processes the launcher has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def start(trainer: Mapping[str, Any]) -> Accelerator:
    """Find this process's device and join the others.

    Args:
        trainer: `device` and a `precision` that is `no`, `bf16` or `fp16`.

    Raises:
        UsageError: float16 without a GPU; a launcher's configuration that shards the model.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

    _check_launcher()
    # accelerate takes several processes without a GPU for several runs, unless it is told that they mean the CPU.
    cpu = trainer["device"] == "cpu" or (count() > 1 and not torch.cuda.is_available())
    if trainer["precision"] == "fp16" and (cpu or not torch.cuda.is_available()):
        raise UsageError("trainer.precision=fp16 needs a GPU", "choose bf16 or no")
    # accelerate remembers the precision and the device of a process's first run and would refuse others to a second one
    # (a sweep, a notebook). The group of processes stays.
    AcceleratorState._reset_state(reset_partial_state=count() == 1)
    # The first may have much to do before the others go on: an evaluation, clusters of a large corpus. A process that
    # dies is the launcher's to notice.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    # The loop divides by the batches of a step itself: nothing that a launcher has set may divide again.
    once = GradientAccumulationPlugin(num_steps=1)
    return Accelerator(
        mixed_precision=trainer["precision"], cpu=cpu, kwargs_handlers=[patience], gradient_accumulation_plugin=once
    )


def _check_launcher() -> None:
    """A file of `accelerate config` may ask for what this loop does not do.

    Raises:
        UsageError: so.
    """
    for kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true":
            raise UsageError(
                f"accelerate launch was told to use {kind}, and here every GPU holds the whole model",
                "give a configuration without it (distributed_type: MULTI_GPU), or use torchrun",
            )


def agree(value: Value) -> Value:
    """The first process's value, for all."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def gathered(values: Sequence[Value]) -> list[Value]:
    """All processes' values, in the order of the processes."""
    if count() == 1:
        return list(values)
    from accelerate.utils import gather_object

    return list(gather_object(list(values)))


def summed(accelerator: Accelerator, *values: float) -> list[float]:
    """Numbers added up over all processes, in float64."""
    if accelerator.num_processes == 1:
        return list(values)
    import torch

    numbers = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.all_reduce(numbers)
    return [float(number) for number in numbers.tolist()]


def sharing(accelerator: Accelerator, learner: nn.Module) -> nn.Module:
    """A learner whose gradients are averaged over all processes. Which parameters have some is settled here, so it is
    called anew when a phase changes that.

    Not `accelerator.prepare_model`: that would wrap the forward pass in autocast once for each phase, and hold on to
    every wrapping with its buffers.
    """
    if accelerator.num_processes == 1:
        return learner
    from torch.nn.parallel import DistributedDataParallel

    ids = [accelerator.local_process_index] if accelerator.device.type == "cuda" else None
    # A head may leave parameters of the upstream unused (the mask embedding; another task's head).
    return DistributedDataParallel(learner, device_ids=ids, find_unused_parameters=True)


def check_count(before: int, accumulate: int, folder: Path) -> None:
    """A run goes on with as many processes as before: with others a step would have another number of batches.

    Args:
        before: processes that wrote the checkpoint.
        accumulate: batches of a step for each.
        folder: the run's.

    Raises:
        UsageError: there are others now.
    """
    if count() != before:
        fitting = f" and trainer.accumulate={before * accumulate // count()} for steps of as many batches"
        raise UsageError(
            f"{folder} was trained by {before} processes, and now there are {count()}",
            "start as many, or go on with allow_changed_config=true"
            + (fitting if before * accumulate % count() == 0 else ""),
        )


def first_to_fail() -> bool:
    """Whether no other process of this run has failed before this one: the first says why, for all.

    Those that fail because it has gone would only say that it has.
    """
    if count() == 1:
        return True
    from torch import distributed

    if not distributed.is_initialized():  # every process makes the same mistake
        return is_first()
    try:
        store = distributed.distributed_c10d._get_default_store()
        return int(store.add("speechft/failed", 1)) == 1
    except Exception:  # the store was the first process's, and went with it
        return False


def leave() -> None:
    """Part from the other processes, after the last thing done together."""
    if count() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
