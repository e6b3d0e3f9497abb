"""What `vramfit train` does when the card runs out, for a loop of one's own: the same samples again, in parts."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from vramfit.jobs.batch import batch_size, part_of
from vramfit.jobs.step import Precision, Step
from vramfit.records import OomEvent
from vramfit.training.recovery import Recovery

Batch = Any
_ADVICE = "use a smaller model or smaller samples, or free memory on the card"
_WHOLE = 1 << 40  # no batch has so many samples: it is taken whole until it does not fit


class RecoveringStep:
    """Optimizer steps of a loop of one's own that survive running out of memory; made by `recovering`.

    `micro_batch` is what it has come down to, None as long as batches are taken whole; `events` is every OOM.
    """

    def __init__(
        self, step: "_LoopStep", weight: Callable[[Batch], float], on_event: Callable[[OomEvent], None]
    ) -> None:
        self.events: list[OomEvent] = []
        self._on_event = on_event
        self._step = step
        self._weight = weight
        self._recovery = Recovery(step, _WHOLE, on_event=self._note, advice=_ADVICE)
        self._taken = 0

    @property
    def micro_batch(self) -> int | None:
        """Samples of one forward and backward pass."""
        return self._recovery.micro_batch if self._recovery.larger else None

    def __call__(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> Tensor:
        """One optimizer step; the mean loss of the batch, on the card.

        Args:
            batch: tensors, or tuples, lists and dicts of them, whose first dimension counts samples.
            loss: the mean loss of a batch or of a part of one, forward pass included.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        samples = batch_size(batch)
        self._taken += 1
        self._recovery.position = (1, self._taken)
        self._step.take = lambda place: part_of(batch, place)
        self._step.loss, self._step.weight = loss, self._weight
        try:
            return self._recovery.train(torch.arange(samples), samples)
        finally:
            self._step.take = self._step.loss = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def _note(self, event: OomEvent) -> None:
        self.events.append(event)
        self._on_event(event)


def recovering(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    weight: Callable[[Batch], float] = batch_size,
    on_event: Callable[[OomEvent], None] = lambda _: None,
) -> RecoveringStep:
    """Optimizer steps that take the same samples again, in smaller micro-batches, where the card runs out of memory.

    A step that fails leaves no trace: weights, optimizer state, scaler, buffers (BatchNorm's) and random states are
    put back, and the gradient of the parts is that of the whole batch's mean. Gradients are dropped after each step.

    Args:
        model: the network that learns; of several an `nn.ModuleList`.
        optimizer: steps it; its `zero_grad` is called after each step.
        scaler: of mixed precision.
        clip_norm: the most that the gradients' norm may be, None for no limit.
        weight: what the mean of the loss is over, such as a batch's valid tokens; its samples by default.
        on_event: is told of each OOM.

    Known limitations:
        One process: gradients of several ranks are not reduced, and a network in DistributedDataParallel is refused.
        BatchNorm's statistics, and what dropout draws, are those of the parts.

    >>> from torch import nn, optim, randn
    >>> model = nn.Linear(4, 1)
    >>> optimizer = optim.AdamW(model.parameters())
    >>> with vramfit.recovering(model, optimizer) as step:
    ...     for batch in [(randn(8, 4), randn(8, 1))]:
    ...         loss = step(batch, lambda part: nn.functional.mse_loss(model(part[0]), part[1]))
    >>> loss.dim(), step.micro_batch, step.events
    (0, None, [])

    Raises:
        UsageError: the network has no parameters that learn, or is spread over several processes.

    """
    return RecoveringStep(_LoopStep(model, optimizer, scaler, clip_norm), weight, on_event)


class _LoopStep(Step):
    """A step whose forward pass is the caller's; its batches are positions in the caller's own."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        clip_norm: float | None,
    ) -> None:
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        _check(model, learning)
        self.phase = "forward"
        self.device = learning[0].device
        self.model, self.optimizer, self.average = model, optimizer, None
        self.precision = Precision(None, scaler or torch.amp.GradScaler(self.device.type, enabled=False))
        self.take: Callable[[slice], Batch] | None = None
        self.loss: Callable[[Batch], Tensor] | None = None
        self.weight: Callable[[Batch], float] = batch_size
        self._clip_norm = clip_norm
        self._learning = learning

    def backward(self, batch: Tensor, micro_batch: int) -> Tensor:
        """Accumulate the gradient of the mean loss over the positions in `batch`."""
        assert self.take is not None
        assert self.loss is not None
        total = float(self.weight(self.take(slice(0, len(batch)))))
        mean = torch.zeros((), device=self.device)
        for start in range(0, len(batch), micro_batch):
            part = self.take(slice(start, start + micro_batch))
            self.phase = "forward"
            loss = self.loss(part) * (float(self.weight(part)) / total)
            self.phase = "backward"
            self.precision.scaler.scale(loss).backward()
            mean = mean + loss.detach()
        return mean

    def update(self) -> None:
        """Unscale, clip, step the optimizer and the scaler, drop the gradients."""
        self.phase = "optimizer"
        scaler = self.precision.scaler
        if self._clip_norm is not None:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learning, self._clip_norm)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def _check(model: nn.Module, learning: Sequence[nn.Parameter]) -> None:
    from vramfit.errors import UsageError

    if not learning:
        raise UsageError("the network has no parameters that learn; unfreeze some, or give the one that is trained.")
    if any(isinstance(one, nn.parallel.DistributedDataParallel) for one in model.modules()):
        raise UsageError("recovering works within one process; give the network without DistributedDataParallel.")
