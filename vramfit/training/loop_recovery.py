"""What `vramfit train` does when the card runs out, for a loop of one's own: the same samples again, in parts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vramfit.errors import UsageError
from vramfit.jobs.averaged_model import AveragedModel
from vramfit.jobs.batch import batch_size, weighed_parts
from vramfit.jobs.job import Batch
from vramfit.jobs.ranks import Ranks
from vramfit.jobs.step import Precision
from vramfit.records import OomEvent, Phase
from vramfit.training.oom_report import FirstOom
from vramfit.training.recovery import StepRecovery

Loss = Callable[[Batch], Tensor]
Weight = Callable[[Batch], float]
ADVICE = "use a smaller model or smaller samples, or free memory on the card"
WHOLE = 1 << 40  # no batch has so many samples: it is taken whole until it does not fit


class RecoveringStep:
    """Optimizer steps of a loop of one's own that survive running out of memory; made by `recovering`.

    `micro_batch` is what it has come down to, None as long as batches are taken whole; `events` is every OOM.
    """

    def __init__(
        self,
        step: "_LoopStep",
        ranks: Ranks,
        on_event: Callable[[OomEvent], None],
        report_to: str | Path | None = None,
    ) -> None:
        self.events: list[OomEvent] = []
        self._on_event = on_event
        self._step = step
        self._ranks = ranks
        explain = FirstOom(step, report_to if ranks.is_first else None)
        self._recovery = StepRecovery(step, WHOLE, ranks=ranks, on_event=self._note, on_failure=explain, advice=ADVICE)
        self._taken = 0

    @property
    def micro_batch(self) -> int | None:
        """Samples of one forward and backward pass."""
        return self._recovery.micro_batch if self._recovery.larger else None

    def __call__(self, batch: Batch, loss: Loss) -> Tensor:
        """One optimizer step; the mean loss of the batch, of all ranks' batches, on the card.

        Args:
            batch: tensors, or tuples, lists and dicts of them, whose first dimension counts samples.
            loss: the mean loss of a batch or of a part of one, forward pass included.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        self._taken += 1
        self._recovery.position = (1, self._taken)
        self._step.loss = loss
        try:
            return self._recovery.take(batch, self._share(batch))
        finally:
            self._step.loss = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def _share(self, batch: Batch) -> float:
        """This rank's part of what the mean over all ranks is over."""
        if self._ranks.world_size == 1:
            return 1.0
        weights = self._ranks.gather(float(self._step.weight(batch)))
        total = sum(weights)
        return weights[self._ranks.rank] / total if total else 1 / len(weights)

    def _note(self, event: OomEvent) -> None:
        self.events.append(event)
        self._on_event(event)


def recovering(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    weight: Weight = batch_size,
    on_event: Callable[[OomEvent], None] = lambda _: None,
    report_to: str | Path | None = None,
) -> RecoveringStep:
    """Optimizer steps that take the same samples again, in smaller micro-batches, where the card runs out of memory.

    A step that fails leaves no trace: weights, optimizer state, scaler, buffers (BatchNorm's) and random states are
    put back, and the gradient of the parts is that of the whole batch's mean. Gradients are dropped after each step.

    With a network in DistributedDataParallel every rank must take each step: a rank that fails is heard by all before
    gradients are reduced, and all split alike. The gradient is that of the mean over all ranks' batches, each weighed
    by `weight`; BatchNorm's statistics are averaged.

    Args:
        model: the network that learns, in DistributedDataParallel or not; of several an `nn.ModuleList`.
        optimizer: steps it; its `zero_grad` is called after each step.
        scaler: of mixed precision.
        clip_norm: the most that the gradients' norm may be, None for no limit.
        weight: what the mean of the loss is over, such as a batch's valid tokens; its samples by default.
        on_event: is told of each OOM.
        report_to: the folder in which why the first OOM came is written, `out_of_memory.txt`; None writes nothing. Its
            first sentence is logged as a warning of the logger `vramfit` either way.

    Known limitations:
        Networks whose parameters are sharded (FSDP) are refused. BatchNorm's statistics, and what dropout draws, are
        those of the parts.

    >>> from torch import nn, optim, randn
    >>> model = nn.Linear(4, 1)
    >>> optimizer = optim.AdamW(model.parameters())
    >>> with vramfit.recovering(model, optimizer) as step:
    ...     for batch in [(randn(8, 4), randn(8, 1))]:
    ...         loss = step(batch, lambda part: nn.functional.mse_loss(model(part[0]), part[1]))
    >>> loss.dim(), step.micro_batch, step.events
    (0, None, [])

    Raises:
        UsageError: the network has no parameters that learn, or they are sharded.

    """
    replicas = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    step = _LoopStep(model, optimizer, scaler, clip_norm, weight=weight, replicas=replicas)
    return RecoveringStep(step, Ranks.here() if replicas else Ranks(), on_event, report_to)


@contextmanager
def without_reduction(replicas: list[DistributedDataParallel]) -> Iterator[None]:
    """Forward and backward of networks with no communication inside, where a rank that fails would be waited for."""
    with ExitStack() as stack:
        for replica in replicas:
            stack.enter_context(replica.no_sync())
            # The first forward pass would send the first rank's buffers all the same.
            replica.require_forward_param_sync = False
        yield


class _LoopStep:
    """A step whose forward pass is the caller's, as a recovery asks for one."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        clip_norm: float | None,
        *,
        weight: Weight,
        replicas: list[DistributedDataParallel],
    ) -> None:
        self._learning = learning_parameters(model)
        self.phase: Phase = "forward"
        self.device = self._learning[0].device
        self.model, self.optimizer = model, optimizer
        self.average: AveragedModel | None = None
        self.precision = Precision(None, scaler or torch.amp.GradScaler(self.device.type, enabled=False))
        self.loss: Loss | None = None
        self.weight = weight
        self._clip_norm = clip_norm
        self._replicas = replicas

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """Accumulate the gradient of the mean loss over a batch."""
        assert self.loss is not None
        mean = torch.zeros((), device=self.device)
        for part, share in weighed_parts(batch, micro_batch, self.weight):
            self.phase = "forward"
            with without_reduction(self._replicas):
                loss = self.loss(part) * share
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


def learning_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network that learn.

    Raises:
        UsageError: there are none, or they are sharded.

    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise UsageError("the network has no parameters that learn; unfreeze some, or give the one that is trained.")
    sharded = ("FullyShardedDataParallel", "FSDPModule")
    if any(kind.__name__ in sharded for module in model.modules() for kind in type(module).__mro__):
        raise UsageError("recovering needs whole parameters on every rank; give the network without FSDP, or in DDP.")
    return learning
