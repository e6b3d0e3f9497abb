"""`FitCallback` for Hugging Face's Trainer: one line, and no step of a run ends it for want of memory.

    trainer = Trainer(..., callbacks=[FitCallback()])

The batch, its samples and their order, the effective batch and the schedule stay the Trainer's; only the parts that a
batch is taken in change. So a resumed run keeps its batch, and nothing is larger than the data set. With `find=True`
the batch itself is searched before the run, and the effective batch is kept by accumulation.
"""

import functools
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import nested_concat

from vramfit.errors import UsageError
from vramfit.integrations.recovery import (
    OnEvent,
    ShowsRecovery,
    TrainerRecovery,
    TrainerStep,
    again,
    kept_free,
    replaced,
    samples_of,
)
from vramfit.integrations.transformers_search import batch_of_checkpoint, search, set_batch
from vramfit.jobs.batch import batch_size, valid_labels, weighed_parts
from vramfit.jobs.job import Batch
from vramfit.jobs.ranks import Ranks
from vramfit.measure.find import SearchResult
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.records import OomEvent
from vramfit.training.loop_recovery import without_reduction
from vramfit.training.rollback import Copies, WeightCopies

logger = logging.getLogger("vramfit")


class FitCallback(ShowsRecovery, TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Takes batches that do not fit in smaller micro-batches, with nothing left of what failed.

    Forward and backward passes, clipping and the optimizer are tried again; gradients that earlier batches accumulated,
    weights, optimizer state, buffers and random states are put back first. Parts weigh by their valid labels, or by
    `num_items_in_batch` where the model counts it. Batches of an evaluation are taken in parts too. With
    DistributedDataParallel all ranks hear of a failure before gradients are reduced, and split alike.

    Args:
        find: search, before the training, the largest `per_device_train_batch_size` that fits of those that divide the
            effective batch, and set `gradient_accumulation_steps` to go with it.
        effective_batch: samples of an optimizer step for that search; the product of the two by default.
        reserve_bytes: what must stay free of a CUDA card.
        on_event: is told of each OOM.

    `micro_batch` is what it has come down to, None as long as batches are taken whole; `events` is every OOM; `result`
    what the search found.

    The search takes three optimizer steps with each size it tries, on the first samples, and puts weights, optimizer
    and random states back. A resumed run keeps the batch of its checkpoint; several processes are not searched.

    Known limitations:
        DeepSpeed, FSDP, `torch.nn.DataParallel` and `auto_find_batch_size` are refused. What the Trainer computes
        between the passes, such as the sum of its losses, is not tried again. A packed batch, whose first dimension is
        1, cannot be split. Under DistributedDataParallel BatchNorm's statistics are averaged, not those of rank 0.
        After a training that raised, which tells no callback, the card's limit is lifted when the next one begins.
        The search takes no evaluation, and what a Trainer of your own counts in its steps counts those of trials too.

    """

    def __init__(
        self,
        *,
        find: bool = False,
        effective_batch: int | None = None,
        reserve_bytes: int = 0,
        on_event: OnEvent = lambda _: None,
    ) -> None:
        if effective_batch is not None and (effective_batch < 1 or not find):
            raise UsageError(f"effective_batch is {effective_batch}; use 1 or more, with find=True, or None.")
        self.result: SearchResult | None = None
        self._find, self._effective_batch = find, effective_batch
        self._found_for: Trainer | None = None
        self.events: list[OomEvent] = []
        self._reserve_bytes = reserve_bytes
        self._on_event = on_event
        self._step: _Step | None = None
        self._recovery: TrainerRecovery | None = None
        self._undo = ExitStack()  # of what a training replaced

    def on_init_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Stand before the Trainer's loop, whose batch is set once it has begun."""
        if self._find:
            trainer = _calling_trainer()
            trainer._inner_training_loop = functools.partial(self._find_first, trainer, trainer._inner_training_loop)

    def _find_first(self, trainer: Trainer, loop: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """In place of `Trainer._inner_training_loop`: the search, and then the loop."""
        _check(trainer)
        args, resumed = trainer.args, named.get("resume_from_checkpoint")
        effective = self._effective_batch or args.per_device_train_batch_size * args.gradient_accumulation_steps
        if args.world_size > 1:
            logger.warning("FitCallback searches no batch for several processes; it recovers them.")
        elif resumed is not None:
            size = batch_of_checkpoint(resumed)
            if size and effective % size == 0:
                set_batch(trainer, size, effective)
        elif self._found_for is not trainer:
            self.result = search(trainer, lambda: loop(*given, **named), effective, self._reserve_bytes)
            self._found_for = trainer
            set_batch(trainer, self.result.batch_size, effective)
            logger.warning("Trainer: %s", self.result.reason.removesuffix("."))
        return loop(*given, **named)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Stand between the Trainer and its step until the training ends.

        Raises:
            UsageError: a Trainer that spreads one network over several cards; a reserve without a card.

        """
        self._undo.close()  # a training that raised told nobody of its end
        trainer = _calling_trainer()
        _check(trainer)
        if self._find and "_inner_training_loop" not in vars(trainer):
            raise UsageError(
                "FitCallback(find=True) has to be there from the start: give it to Trainer(callbacks=[...])."
            )
        self._undo.enter_context(kept_free(self._reserve_bytes, args.device))
        goes_on = self._step is not None and self._step.trainer is trainer
        before = self._recovery.micro_batch if self._recovery and goes_on else None
        step = self._step = _Step(trainer)
        self._recovery = TrainerRecovery(step, Ranks.here() if step.replicas else Ranks(), self._note, before)
        for owner, name, mine in (
            (trainer, "compute_loss", functools.partial(step.weigh, trainer.compute_loss)),
            (trainer, "training_step", self._train),
            (trainer, "_clip_grad_norm", functools.partial(self._clip, trainer._clip_grad_norm)),
            (trainer.optimizer, "step", self._recovered(trainer.optimizer.step)),
        ):
            self._undo.enter_context(replaced(owner, name, mine))
        if getattr(trainer.prediction_step, "func", None) != self._predict:  # it stays, for evaluations after training
            trainer.prediction_step = functools.partial(self._predict, trainer.prediction_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave the Trainer and the card as they were, but for evaluations."""
        self._undo.close()

    def _train(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """In place of `Trainer.training_step`."""
        assert self._step is not None
        assert self._recovery is not None
        state = self._step.trainer.state
        self._step.wrapped, self._step.items = model, num_items_in_batch
        return self._recovery.take_next(dict(inputs), (int(state.epoch or 0) + 1, state.global_step + 1))

    def _clip(self, clip: Callable[..., Any], model: nn.Module) -> Any:
        """In place of `Trainer._clip_grad_norm`, which changes gradients where they lie."""
        step, recovery = self._step, self._recovery
        assert step is not None
        assert recovery is not None
        gradients = [parameter.grad for parameter in step.learning if parameter.grad is not None]
        return again(recovery, lambda: clip(model), lambda: Copies.where_room_is(gradients, step.device))

    def _recovered(self, take: Callable[..., Any]) -> Callable[..., Any]:
        """An optimizer's step that is tried again."""

        @functools.wraps(take)  # its marks too, by which a schedule knows it
        def step(*given: Any, **named: Any) -> Any:
            assert self._recovery is not None
            mine = self._recovery.trainer_step
            return again(self._recovery, lambda: take(*given, **named), lambda: WeightCopies(mine))

        return step

    def _predict(
        self, predict: Callable[..., Any], model: nn.Module, inputs: Batch, *given: Any, **named: Any
    ) -> tuple[Any, Any, Any]:
        """In place of `Trainer.prediction_step`: a batch of an evaluation, in halves where it does not fit."""
        samples = batch_size(dict(inputs))
        try:
            loss, logits, labels = predict(model, dict(inputs), *given, **named)
            return loss, logits, labels
        except Exception as error:
            if samples == 1 or not is_out_of_memory(error):
                raise
        release_memory()
        half = -(-samples // 2)
        parts = [samples_of(dict(inputs), place) for place in (slice(0, half), slice(half, samples))]
        answers = [self._predict(predict, model, part, *given, **named) for part in parts]
        return _joined(answers, [_terms(part) for part in parts])


class _Step(TrainerStep):
    """The Trainer's own forward and backward passes; clipping and the optimizer are its loop's."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer.model, getattr(trainer.optimizer, "optimizer", trainer.optimizer))
        self.trainer = trainer
        self.items: Any = None
        self._train = trainer.training_step
        self._share = 1.0
        self.wrapped = trainer.model_wrapped
        self.replicas = [one for one in self.wrapped.modules() if isinstance(one, DistributedDataParallel)]

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """The Trainer's training step on each part."""
        counted = self.trainer.model_accepts_loss_kwargs or self.trainer.compute_loss_func is not None
        # A loss that is a sum over `num_items_in_batch` is a sum over its parts, each of which is finite.
        is_sum = counted and self.items is not None
        total = torch.zeros((), device=self.device)
        for part, share in weighed_parts(batch, micro_batch, batch_size if is_sum else _terms, samples_of):
            self._share = 1.0 if is_sum else share
            self.phase = "forward"
            # In containers of its own: what a step takes out of them must be there for a second try.
            mine = samples_of(part, slice(None))
            with without_reduction(self.replicas):
                total = total + self._train(self.wrapped, mine, self.items)
        self._share = 1.0
        return total

    def weigh(self, compute: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """In place of `Trainer.compute_loss`: the loss times the part's share of the batch."""
        computed = compute(*given, **named)
        self.phase = "backward"
        if isinstance(computed, tuple):
            return computed[0] * self._share, *computed[1:]
        return computed * self._share if self._share != 1.0 else computed


def _terms(batch: Batch) -> float:
    """What the mean loss is over: the valid labels, or else the samples."""
    labels = batch.get("labels")
    return valid_labels([labels] if isinstance(labels, Tensor) else [], batch_size(batch))


def _joined(answers: list[tuple[Any, Any, Any]], terms: list[float]) -> tuple[Any, Any, Any]:
    """Loss, logits and labels of two parts as those of their batch."""
    (loss, logits, labels), (more_loss, more_logits, more_labels) = answers
    if loss is not None:
        # A part without valid labels has no mean: NaN, whatever it weighs.
        weights = terms if any(terms) else [1.0, 1.0]
        loss = sum(one * own for one, own in zip((loss, more_loss), weights, strict=True) if own) / sum(weights)
    if logits is not None:
        logits = nested_concat(logits, more_logits, padding_index=-100)
    if labels is not None:
        labels = nested_concat(labels, more_labels, padding_index=-100)
    return loss, logits, labels


def _calling_trainer() -> Trainer:
    """The Trainer whose event is being handled: it tells its callbacks everything but itself."""
    frame = sys._getframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), Trainer):
            return frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]
    raise UsageError("FitCallback is a callback of transformers.Trainer; give it to one: Trainer(callbacks=[...]).")


def _check(trainer: Trainer) -> None:
    found = {
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "FSDP": trainer.is_fsdp_enabled,
        "torch.nn.DataParallel (start one process a card with torchrun)": trainer.args.n_gpu > 1,
        "auto_find_batch_size, which changes the batch; set it to False": trainer.args.auto_find_batch_size,
    }
    wrong = next((name for name, is_on in found.items() if is_on), None)
    if wrong is not None:
        raise UsageError(f"FitCallback does not work with {wrong}.")
