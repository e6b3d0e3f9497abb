"""Optimizers that ask for the loss several times in each step, such as LBFGS: what they call."""

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.jobs.job import Batch
    from vramfit.jobs.step import Step


def wants_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer cannot step without a function that computes the loss anew."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class Closure:
    """The loss and its gradients, anew for the weights as they are; the first call gives those that are there already.

    Known limitation: dropout draws anew, and BatchNorm's statistics follow every call, as in a loop of one's own.
    """

    def __init__(self, step: "Step") -> None:
        self._step = step
        self._passes: list[tuple[Batch, int]] = []
        self._loss: Tensor | None = None
        self.running = False

    @classmethod
    def of(cls, step: "Step") -> "Closure | None":
        """What a step's optimizer calls; None where it needs no such thing.

        Raises:
            UsageError: the job cannot compute its loss again, or scales its gradients as fp16 does.

        """
        if not wants_closure(step.optimizer):
            return None
        name = type(step.optimizer).__name__
        if step.job.step is not None:
            raise UsageError(
                f"{name} wants the loss several times in a step; a Job with a step of its own gives it once."
            )
        if step.precision.scaler.is_enabled():
            raise UsageError(
                f"{name} wants the loss several times in a step, and fp16's scaler gives it once; "
                "use amp='bf16' or None."
            )
        return cls(step)

    def remember(self, batch: "Batch", micro_batch: int, loss: Tensor) -> None:
        """Note a backward pass whose gradients the next update is to use."""
        if not self.running:
            self._passes.append((batch, micro_batch))
            self._loss = loss if self._loss is None else self._loss + loss

    def update(self) -> None:
        """Step the optimizer, and forget the batches."""
        self._step.optimizer.step(self)  # type: ignore[arg-type]  # torch says that a closure returns a float
        self._passes.clear()
        self._loss = None

    def __call__(self) -> Tensor:
        """The loss, whose gradients the parameters then have."""
        if self._loss is not None:
            known, self._loss = self._loss, None
            return known
        self._step.optimizer.zero_grad(set_to_none=True)
        self.running = True
        loss = torch.stack([self._step.backward(*one) for one in self._passes]).sum()
        self.running = False
        self._step.clip(self._step.optimizer, self._step.model.parameters())
        return loss
