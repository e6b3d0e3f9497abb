"""The search for the batch of Hugging Face's Trainer: trials by its own loop, and everything put back after them."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState

from vramfit.errors import NothingFits
from vramfit.integrations.first_steps import StateBefore, Stopped
from vramfit.integrations.recovery import kept_free, replaced
from vramfit.measure.find import SearchResult, Trials
from vramfit.measure.preserve import preserved
from vramfit.plan.search import Search, Tried

STEPS = 3  # optimizer steps of a trial: its state is there from the second on


def search(trainer: Trainer, loop: Callable[[], Any], effective_batch: int, reserve_bytes: int) -> SearchResult:
    """The largest batch that fits of those into which an effective batch divides, tried by the Trainer's own `loop`.

    Raises:
        NothingFits: not even a single sample does.
        UsageError: a reserve without a card.

    """
    sizes = _divisors(effective_batch, _samples(trainer))
    believed = [size for size in sizes if size <= trainer.args.per_device_train_batch_size]
    plan, tried = Search(maximum=len(sizes), guess=max(1, len(believed))), list[Tried]()
    trials = Trials(lambda size: _try(trainer, loop, size, effective_batch), None)
    with preserved(), kept_free(reserve_bytes, trainer.args.device):
        while True:
            place = plan.next_size([Tried(sizes.index(one.micro_batch) + 1, one.verdict) for one in tried])
            if place is None:
                break
            tried.append(trials(sizes[place - 1]))
    fitting = [one.micro_batch for one in tried if one.fits]
    if not fitting:
        raise NothingFits("No batch size fits, not even 1; free memory on the card or shrink the model.")
    size = max(fitting)
    failing = min((one.micro_batch for one in tried if one.micro_batch > size), default=None)
    why = f"{failing} runs out of memory" if failing else "the largest that was asked for or that the data makes"
    return SearchResult(size, tuple(tried), f"batch {size}, {effective_batch // size} times a step: {why}.")


def set_batch(trainer: Trainer, size: int, effective_batch: int) -> None:
    """Let a Trainer take batches of this size, as many a step as make the effective batch."""
    args = trainer.args
    args.per_device_train_batch_size = size
    args.gradient_accumulation_steps = effective_batch // size
    trainer._train_batch_size = args.train_batch_size


def batch_of_checkpoint(folder: str) -> int | None:
    """The batch that a checkpoint was trained with; None if it does not say."""
    path = os.path.join(folder, "trainer_state.json")  # noqa: PTH118  # as the Trainer names it
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    size: int | None = TrainerState.load_from_json(path).train_batch_size
    return size


def _divisors(number: int, most: int) -> list[int]:
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]


def _samples(trainer: Trainer) -> int:
    """The samples of the training set; the effective batch is the bound where nobody knows them."""
    try:
        return max(1, len(trainer.train_dataset))
    except TypeError:
        return sys.maxsize


class _Ending(TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Ends a trial after some steps of which a gradient scaler did not skip the last: the optimizer has its state."""

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **given: Any) -> None:
        if state.global_step >= STEPS and not getattr(optimizer, "step_was_skipped", False):
            raise Stopped


def _try(trainer: Trainer, loop: Callable[[], Any], size: int, effective_batch: int) -> None:
    """A few steps with a batch: accumulated where the run will be, with no callback, evaluation or checkpoint.

    The network stays as accelerate prepared it, for the loop takes it so after an earlier training, too.
    """
    before = StateBefore((trainer.model, trainer.optimizer, trainer.lr_scheduler))
    with ExitStack() as stack:
        for owner, name, value in (
            (trainer.args, "per_device_train_batch_size", size),
            (trainer.args, "gradient_accumulation_steps", min(2, effective_batch // size)),
            (trainer.args, "eval_on_start", False),
            (trainer, "_train_batch_size", size),
            (trainer, "neftune_noise_alpha", None),  # the loop's end would take its noise away
            (trainer, "optimizer", trainer.optimizer),
            (trainer, "lr_scheduler", trainer.lr_scheduler),
            (trainer, "_created_lr_scheduler", trainer._created_lr_scheduler),
            (trainer.callback_handler, "callbacks", [_Ending()]),
        ):
            stack.enter_context(replaced(owner, name, value))
        stack.callback(before.put_back)
        stack.callback(trainer.accelerator.free_memory)
        stack.enter_context(suppress(Stopped))
        loop()
