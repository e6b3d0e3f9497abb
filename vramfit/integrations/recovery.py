"""Recovery inside another trainer's step: its own forward and backward passes, on parts of its batch.

Other trainers accumulate gradients over several batches. What earlier batches left is laid aside while a batch is
taken, so that a failure can drop what it made, and added once the batch has worked.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.jobs.averaged_model import AveragedModel
from vramfit.jobs.batch import batch_size, map_tensors, tensors_in
from vramfit.jobs.job import Batch
from vramfit.jobs.ranks import Ranks
from vramfit.jobs.step import Precision
from vramfit.oom import release_memory
from vramfit.records import OomEvent, Phase
from vramfit.training.loop_recovery import ADVICE, WHOLE, learning_parameters
from vramfit.training.recovery import Failure, StepRecovery
from vramfit.training.rollback import Rollback

OnEvent = Callable[[OomEvent], None]
Made = TypeVar("Made")
logger = logging.getLogger("vramfit")


class TrainerStep:
    """A step of another trainer as a recovery asks for one; its subclasses say how the two halves are taken.

    `updates` says whether the optimizer steps after the batch at hand, which `update` must then do.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
    ) -> None:
        self.learning = learning_parameters(model)
        self._earlier: list[Tensor | None] = []
        self.phase: Phase = "forward"
        self.device = self.learning[0].device
        self.model, self.optimizer = model, optimizer
        self.average: AveragedModel | None = None
        self.precision = Precision(None, scaler or torch.amp.GradScaler(self.device.type, enabled=False))
        self.updates = False
        self.samples = 1

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """Accumulate the gradient of the batch's loss as the trainer scales it; the loss, on the device."""
        raise NotImplementedError

    def update(self) -> None:
        """Add what earlier batches left."""
        for parameter, earlier in zip(self.learning, self._earlier, strict=True):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else parameter.grad + earlier

    def lay_aside(self) -> None:
        """Keep the gradients of earlier batches from what the next one makes."""
        self._earlier = [parameter.grad for parameter in self.learning]
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Begin without gradients."""
        for parameter in self.learning:
            parameter.grad = None

    def forget(self) -> None:
        """Let go of the gradients of earlier batches."""
        self._earlier = []


class TrainerRecovery(StepRecovery):
    """Takes the batches of another trainer, whole until one does not fit."""

    def __init__(
        self, step: TrainerStep, ranks: Ranks, on_event: Callable[[OomEvent], None], micro_batch: int | None = None
    ) -> None:
        super().__init__(step, micro_batch or WHOLE, ranks=ranks, on_event=on_event, advice=ADVICE)
        self.trainer_step = step

    def take_next(self, batch: Batch, position: tuple[int, int]) -> Tensor:
        """One batch of a trainer that is at (epoch, step); the mean loss over ranks.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        self.position = position
        self.trainer_step.samples = batch_size(batch)
        self.trainer_step.lay_aside()
        try:
            return self.take(batch, 1 / self.ranks.world_size)
        finally:
            self.trainer_step.forget()

    def tell_repeated(self, failure: Failure) -> None:
        """Tell of an OOM after which nothing has to be smaller."""
        epoch, step = self.position
        size = min(self.micro_batch, self.trainer_step.samples)
        sizes = {"micro_batch_before": size, "micro_batch_after": size}
        self._on_event(OomEvent(epoch=epoch, step=step, phase=failure.phase, message=failure.message, **sizes))

    def _update(self, rollback: Rollback) -> Failure | None:
        if self.trainer_step.updates:
            return super()._update(rollback)
        try:
            self.trainer_step.update()  # moves no weight
        except Exception as error:
            return self._failure_of(error)
        return None


class ShowsRecovery:
    """What a callback shows of its recovery: `events`, every OOM so far, each of which it logs, and `micro_batch`."""

    events: list[OomEvent]
    _on_event: OnEvent
    _recovery: TrainerRecovery | None

    @property
    def micro_batch(self) -> int | None:
        """Samples of one forward and backward pass."""
        return self._recovery.micro_batch if self._recovery and self._recovery.larger else None

    def _note(self, event: OomEvent) -> None:
        self.events.append(event)
        words = "the %s of step %d ran out of memory with a micro-batch of %d; it goes on with %d"
        logger.warning(words, event.phase, event.step, event.micro_batch_before, event.micro_batch_after)
        self._on_event(event)


class Restorable(Protocol):
    """Copies that can be written back."""

    def restore(self) -> None:
        """Put everything back."""
        ...


def again(recovery: TrainerRecovery, act: Callable[[], Made], keep: Callable[[], Restorable]) -> Made:
    """What `act` returns, with a second try, from what `keep` copied, where it runs out of memory.

    By then the activations are gone, and their memory is handed back before it.
    """
    kept: Restorable | None = None
    recovery.trainer_step.phase = "optimizer"
    try:
        kept = keep()
        return act()
    except Exception as error:
        failure = recovery._failure_of(error)
    release_memory()
    if kept is not None:
        kept.restore()
    recovery.tell_repeated(failure)
    return act()


def samples_of(batch: Batch, place: slice) -> Batch:
    """Some of a batch's samples, as views; tensors that do not count samples first stay whole."""
    samples = batch_size(batch)
    return map_tensors(lambda value: value[place] if value.dim() and len(value) == samples else value, batch)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of an object that has another value within, and after it its own, or its class's, again."""
    is_own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            vars(owner).pop(name, None)


@contextmanager
def kept_free(reserve_bytes: int, device: torch.device) -> Iterator[None]:
    """Within it torch has what a card has free but for a reserve, in bytes; an allocation beyond fails.

    Raises:
        UsageError: there is no card, or not so much free.

    """
    if not reserve_bytes:
        yield
        return
    if device.type != "cuda":
        raise UsageError(f"reserve_bytes is of a CUDA card, and training is on {device.type}; leave it out.")
    free, total = torch.cuda.mem_get_info(device)
    allowed = free + torch.cuda.memory_reserved(device) - reserve_bytes
    if allowed <= 0:
        raise UsageError(f"reserve_bytes is {reserve_bytes}, and the card has {free} free; reserve less.")
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def can_be_split(batch: Batch) -> bool:
    """Whether a batch has a tensor whose first dimension may count samples."""
    tensors = tensors_in(batch)
    return bool(tensors) and tensors[0].dim() > 0
