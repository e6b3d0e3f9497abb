"""What a step changes, kept until the step is known to have worked.

Two copies, each taken as late as it can be:

- before the forward pass: buffers (batch normalisation moves them) and random states; a few hundred KiB;
- before the optimizer: parameters, optimizer state, averaged weights, scaler. A foreach optimizer that stops half-way
  cannot be run again. By then the activations are gone, so the copy lies in memory that the allocator already holds:
  it raises no peak and costs one read and one write of these tensors, around 1 % of an HRNet's step. Where the card
  has not that much cached, the copy goes to the host.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from vramfit.jobs.averaged_model import AveragedModel
from vramfit.jobs.random_state import random_state, set_random_state
from vramfit.jobs.step import Precision
from vramfit.measure.memory import room_bytes


class Recordable(Protocol):
    """A step as far as a rollback knows it."""

    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    precision: Precision


class Rollback:
    """The two copies of one step, and the way back."""

    def __init__(self, step: Recordable) -> None:
        """Copy what the forward pass moves.

        Raises:
            RuntimeError: out of memory; nothing has changed yet.

        """
        self._step = step
        self._random = random_state(step.device)
        self._buffers = Copies(list(step.model.buffers()))
        self._weights: WeightCopies | None = None

    def before_optimizer(self) -> None:
        """Copy what the optimizer moves.

        Raises:
            RuntimeError: out of memory; nothing of it has changed yet.

        """
        self._weights = WeightCopies(self._step)

    def restore(self) -> None:
        """Put everything back as it was before the step, and drop its gradients."""
        self._step.optimizer.zero_grad(set_to_none=True)
        if self._weights is not None:
            self._weights.restore()
            self._weights = None
        self._buffers.restore()
        set_random_state(self._random, self._step.device)


class Copies:
    """Copies of tensors, beside them where the card has room and else on the host."""

    def __init__(self, tensors: Sequence[Tensor], *, on_host: bool = False) -> None:
        self.tensors = list(tensors)
        self.copies = [torch.empty_like(tensor, device="cpu" if on_host else None) for tensor in self.tensors]
        _copy(self.copies, self.tensors)

    @classmethod
    def where_room_is(cls, tensors: Sequence[Tensor], device: torch.device) -> "Copies":
        """On the card if they fit into what torch holds or may take, else on the host."""
        return cls(tensors, on_host=not _fits_in_cache(tensors, device))

    def restore(self) -> None:
        """Write the tensors as they were."""
        _copy(self.tensors, self.copies)


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    """Thousands of small tensors in a few kernels; a launch for each would cost more than the bytes."""
    if to:
        torch._foreach_copy_(to, source)


class WeightCopies:
    """Parameters, optimizer state, averaged weights and scaler."""

    def __init__(self, step: Recordable) -> None:
        self.step = step
        self.state = {parameter: dict(mine) for parameter, mine in step.optimizer.state.items()}
        self.averaged = step.average.steps if step.average is not None else 0
        self.copies = Copies.where_room_is(_moved_tensors(step), step.device)

    def restore(self) -> None:
        """Put all of it back, and forget state that was made since."""
        optimizer = self.step.optimizer
        for parameter in list(optimizer.state):
            if parameter in self.state:
                optimizer.state[parameter].clear()
                optimizer.state[parameter].update(self.state[parameter])
            else:
                del optimizer.state[parameter]  # made by the step that failed
        self.copies.restore()
        if self.step.average is not None:
            self.step.average.steps = self.averaged
        _forget_unscaling(self.step.precision.scaler, optimizer)


def _moved_tensors(step: Recordable) -> list[Tensor]:
    average = step.average.model.state_dict().values() if step.average is not None else ()
    scaler = step.precision.scaler
    state = [value for mine in step.optimizer.state.values() for value in mine.values() if isinstance(value, Tensor)]
    scale = [scaler._scale, scaler._growth_tracker] if scaler.is_enabled() else []
    return [
        *(p.detach() for p in step.model.parameters() if p.requires_grad),
        *state,
        *average,
        *(value for value in scale if value is not None),
    ]


def _fits_in_cache(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Whether copies fit on the card with room to spare: into what torch already holds, or below its limit."""
    if device.type != "cuda":
        return True
    wanted = 1.5 * sum(tensor.nbytes for tensor in tensors)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return cached > wanted or cached + room_bytes(device) > 2 * wanted


def _forget_unscaling(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
    # A scaler refuses to unscale twice before `update`, and has no public way to begin a step again.
    # It also hands a fused optimizer its scale, and takes it back only from a step that succeeds:
    # left there, the next attempt would divide the gradients by the scale twice.
    for name in ("grad_scale", "found_inf"):
        optimizer.__dict__.pop(name, None)
    from torch.amp.grad_scaler import _refresh_per_optimizer_state

    if scaler.is_enabled():
        scaler._per_optimizer_states = defaultdict(_refresh_per_optimizer_state)
