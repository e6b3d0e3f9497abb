"""The optimizer's step for one weight at a time, in the backward pass: `register_post_accumulate_grad_hook`."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.distributed
from torch import Tensor

from vramfit.errors import UsageError
from vramfit.jobs.batch import batch_size

if TYPE_CHECKING:
    from vramfit.jobs.job import Batch, Job
    from vramfit.jobs.step import Step


def obstacle(job: "Job") -> str | None:
    """What of a job needs all gradients at once, None for nothing."""
    if job.clip_norm is not None:
        return "clipping (clip_norm) needs the norm of all gradients"
    if job.late_zero_grad:
        return "late_zero_grad keeps them for the next step"
    if job.amp == "fp16":
        return "fp16's gradient scaler looks at all gradients before a step (use amp=bf16)"
    if isinstance(job.optimizer, Mapping) or job.step is not None:
        return "several optimizers, or a step of the job's own, choose themselves when to step"
    return None


def require_possible(job: "Job") -> None:
    """Refuse a job that needs all gradients at once.

    Raises:
        UsageError: says what needs them.

    """
    found = obstacle(job)
    if found is not None:
        raise UsageError(
            f"optimizer_in_backward drops each gradient as soon as it is used, and {found}; leave out one of the two."
        )


def step_in_backward(step: "Step") -> None:
    """Make each weight of a step update itself once its gradient is whole; the later update finds none to do.

    A weight is stepped by the step's own optimizer, with its group's settings, so schedules and checkpoints stay as
    they are. AdamW and its like treat each weight by itself: the result is that of a whole step.

    Raises:
        UsageError: several ranks share the step.

    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise UsageError("optimizer_in_backward updates before ranks have shared their gradients; use it on one card.")
    for place, group in enumerate(step.optimizer.param_groups):
        for parameter in group["params"]:
            parameter.register_post_accumulate_grad_hook(partial(_update, step.optimizer, place))
    step.backward = _WholeBatches(step)  # type: ignore[method-assign]  # the bound method is kept in it


def _update(optimizer: torch.optim.Optimizer, place: int, parameter: Tensor) -> None:
    groups = optimizer.param_groups
    optimizer.param_groups = [{**groups[place], "params": [parameter]}]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups
    parameter.grad = None


class _WholeBatches:
    """The backward of a step that must not split a batch: each part would be a step of its own."""

    def __init__(self, step: "Step") -> None:
        self._backward: Any = step.backward
        self._name = step.job.name

    def __call__(self, batch: "Batch", micro_batch: int) -> Tensor:
        """The batch's gradients, used and dropped; its mean loss."""
        if batch_size(batch) > micro_batch:
            raise UsageError(
                f"optimizer_in_backward cannot accumulate: a batch of {batch_size(batch)} of '{self._name}' would be "
                f"split into parts of {micro_batch}; train with batches of {micro_batch}, or without the lever."
            )
        loss: Tensor = self._backward(batch, micro_batch)
        return loss
