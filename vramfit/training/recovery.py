"""Running out of memory without losing anything: the same samples again, in smaller micro-batches.

A step that fails, wherever it fails, leaves no trace: memory is released outside the `except` (a caught error's
traceback keeps the step's tensors alive), everything the step moved is put back, and its samples are split anew. The
effective batch, the order of samples and the gradient they give stay what they were. All ranks do the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from vramfit.errors import OutOfMemory
from vramfit.jobs.batch import batch_size, part_of
from vramfit.jobs.job import Batch
from vramfit.jobs.ranks import Ranks
from vramfit.jobs.step import Step
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.records import OomEvent, Phase
from vramfit.training.oom_report import FirstOom
from vramfit.training.rollback import Recordable, Rollback

Made = TypeVar("Made")


class Recoverable(Recordable, Protocol):
    """What a recovery asks of a step beyond what a rollback copies: its two halves."""

    phase: Phase

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """Accumulate the gradient of a batch's mean loss in parts of so many samples; the mean, on the device."""
        ...

    def update(self) -> None:
        """Step the optimizer, and drop the gradients."""
        ...


@dataclass(frozen=True)
class Failure:
    """An OOM as it is remembered once its error is gone."""

    phase: Phase
    message: str


def even_micro_batch(samples: int, micro_batch: int) -> int:
    """The micro-batch that cuts samples into no more parts, but more even ones: 7 in parts of 6 are 4 and 3."""
    parts = -(-samples // micro_batch)
    return -(-samples // parts)


def made_again(make: Callable[[], Made], what: str) -> Made:
    """What `make` makes, with a second try once memory is released: the first may have found another's leavings.

    Raises:
        OutOfMemory: the second try fails too.

    """
    for last in (False, True):
        try:
            return make()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            words = str(error).strip().splitlines() or [type(error).__name__]
            message = f"out of memory before the first step, for {what} ({words[0][:200]}); free memory on the card."
        release_memory()
        if last:
            raise OutOfMemory(message)
    raise AssertionError


class StepRecovery:
    """Takes a step's batches in micro-batches that fit, and smaller ones once they do not.

    `micro_batch` is what it has come down to, `larger` the micro-batches that it came down from, the last one last;
    `position` is (epoch, step) for the events. `on_failure` is given every OOM while the tensors of its step are alive;
    by default the first is explained in the log.
    """

    def __init__(
        self,
        step: Recoverable,
        micro_batch: int,
        *,
        ranks: Ranks | None = None,
        on_event: Callable[[OomEvent], None] = lambda _: None,
        on_failure: Callable[[Exception], None] | None = None,
        advice: str = "use a smaller --image-size or --model, or free memory on the card, and go on with --resume",
    ) -> None:
        self._advice = advice
        self.step = step
        self.micro_batch = micro_batch
        self.larger: list[int] = []
        self.ranks = ranks or Ranks()
        self.position = (0, 0)
        self._on_event = on_event
        self._on_failure = on_failure or FirstOom(step)

    def train(self, batch: Batch | None, total: int) -> Tensor:
        """One optimizer step on this rank's samples, of `total` over all ranks; the mean loss over all, on the device.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        return self.take(batch, batch_size(batch) / total if batch is not None else 0.0)

    def take(self, batch: Batch | None, weight: float) -> Tensor:
        """As `train`, with this rank's share of what the mean is over in place of its samples.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        while True:
            loss, failure = self._attempt(batch, weight)
            if loss is not None:
                return loss
            release_memory()
            self._shrink(failure, batch)

    def _attempt(self, batch: Batch | None, weight: float) -> tuple[Tensor | None, Failure | None]:
        """The loss of a step that every rank took, or no loss and, on a rank where it failed, why; then undone."""
        rollback, loss, failure = self._gradients(batch, weight)
        if not self.ranks.any(failure is not None):
            assert rollback is not None
            assert loss is not None
            self._reduce(weight)
            failure = self._update(rollback)
            if not self.ranks.any(failure is not None):
                return self.ranks.sum(loss), None
        if rollback is not None:
            rollback.restore()
        return None, failure

    def _gradients(self, batch: Batch | None, weight: float) -> tuple[Rollback | None, Tensor | None, Failure | None]:
        """Forward and backward; no rollback where not even its copies could be made, and nothing has moved."""
        rollback: Rollback | None = None
        self.step.phase = "forward"
        try:
            rollback = Rollback(self.step)
            loss = torch.zeros((), device=self.step.device)
            if batch is not None:
                loss = self.step.backward(batch, even_micro_batch(batch_size(batch), self.micro_batch)) * weight
            else:
                self.step.optimizer.zero_grad(set_to_none=True)  # a job may leave those of the step before
            self.ranks.fill_gradients(self._parameters())
        except Exception as error:
            return rollback, None, self._failure_of(error)
        return rollback, loss, None

    def _update(self, rollback: Rollback) -> Failure | None:
        self.step.phase = "optimizer"  # the copies before it are its own
        try:
            rollback.before_optimizer()
            self.step.update()
        except Exception as error:
            return self._failure_of(error)
        return None

    def _reduce(self, weight: float) -> None:
        self.ranks.average_gradients(self._parameters(), weight)
        self.ranks.average_statistics(self.step.model, weight)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.step.model.parameters() if parameter.requires_grad]

    def _failure_of(self, error: Exception) -> Failure:
        """What an OOM was, in words that hold no tensor; any other error goes on its way."""
        if not is_out_of_memory(error):
            raise error
        self._on_failure(error)
        words = str(error).strip().splitlines() or [type(error).__name__]
        return Failure(self.step.phase, words[0][:200])

    def _shrink(self, failure: Failure | None, batch: Batch | None) -> None:
        failure = next(known for known in self.ranks.gather(failure) if known is not None)
        tried = self.micro_batch if batch is None else min(self.micro_batch, batch_size(batch))
        smaller = self._halved(failure, self.ranks.minimum(tried))
        self.larger.append(self.micro_batch)
        self.micro_batch = smaller

    def _halved(self, failure: Failure, micro_batch: int) -> int:
        epoch, step = self.position
        if micro_batch == 1:
            raise OutOfMemory(
                f"out of memory in the {failure.phase} of epoch {epoch}, step {step}, with a micro-batch of 1; "
                f"{self._advice}."
            )
        event = OomEvent(
            epoch=epoch,
            step=step,
            phase=failure.phase,
            micro_batch_before=micro_batch,
            micro_batch_after=-(-micro_batch // 2),
            message=failure.message,
        )
        self._on_event(event)
        return event.micro_batch_after


class Recovery(StepRecovery):
    """The recovery of a run, which validates too; `validation_batch` is what that has come down to."""

    step: Step

    def __init__(self, step: Step, micro_batch: int, **told: Any) -> None:
        super().__init__(step, micro_batch, **told)
        self.validation_batch = micro_batch

    def validate(self, batch: Batch) -> Iterator[tuple[Any, Tensor, slice]]:
        """Outputs and mean loss of each part of a batch, and the part's place in it.

        Raises:
            OutOfMemory: a single sample does not fit.

        """
        done, total = 0, batch_size(batch)
        while done < total:
            size = min(self.validation_batch, total - done)
            result, failure = self._validate(batch, slice(done, done + size))
            if failure is not None:
                release_memory()
                self.validation_batch = self._halved(failure, size)
                continue
            yield *result, slice(done, done + size)
            done += size

    def grow_back(self) -> None:
        """Take the micro-batch of before the last OOM again; validation, which gains nothing by it, stays as it is."""
        self.micro_batch = self.larger.pop()

    def _validate(self, batch: Batch, place: slice) -> tuple[Any, Failure | None]:
        self.step.phase = "validation"
        try:
            return self.step.validate(part_of(batch, place)), None
        except Exception as error:
            failure = self._failure_of(error)
        return None, failure

    def _shrink(self, failure: Failure | None, batch: Batch | None) -> None:
        super()._shrink(failure, batch)
        self.validation_batch = min(self.validation_batch, self.micro_batch)
