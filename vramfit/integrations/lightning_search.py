"""The search for Lightning's batch size: trials by Lightning's own loop, and everything put back after them."""

import uuid
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.tuner import batch_size_scaling as scaling
from pytorch_lightning.utilities.parsing import lightning_setattr

from vramfit.measure.find import Bounds, SearchResult, Trials, search_sizes


@dataclass(frozen=True)
class Asked:
    """What `FitCallback` was asked to find."""

    mode: str
    steps: int
    start: int
    max_trials: int
    attribute: str
    margin: float
    maximum: int
    reserve_bytes: int


def search(trainer: pl.Trainer, asked: Asked) -> SearchResult:
    """The largest batch size, tried by Lightning's own loop; everything is put back."""
    loop = trainer._active_loop
    loop.setup_data()
    bounds = Bounds(1, _largest(loop, asked), max_trials=asked.max_trials)
    path = Path(trainer.default_root_dir) / f".vramfit_{uuid.uuid4()}.ckpt"
    trainer.save_checkpoint(path)
    before = scaling.__dict__["__scale_batch_dump_params"](trainer)
    check_every = trainer.check_val_every_n_epoch
    try:
        _prepare(trainer, asked.steps)
        trials = Trials(lambda size: _try(trainer, before, asked.attribute, size), None, asked.reserve_bytes)
        found = search_sizes(trials, bounds, min(asked.start, bounds.largest))
    finally:
        _leave_validation(trainer)
        trainer.check_val_every_n_epoch = check_every
        scaling.__dict__["__scale_batch_restore_params"](trainer, before)
        if trainer.progress_bar_callback:
            trainer.progress_bar_callback.enable()
        trainer._checkpoint_connector.restore(path)
        trainer.strategy.remove_checkpoint(path)
    return _narrowed(found, asked)


def _prepare(trainer: pl.Trainer, steps: int) -> None:
    """A run of few steps and a validation, without loggers, and of callbacks with averaged weights alone."""
    averaging = [one for one in trainer.callbacks if isinstance(one, WeightAveraging)]
    scaling.__dict__["__scale_batch_reset_params"](trainer, steps)
    trainer.callbacks = averaging
    if trainer.state.fn == "fit":
        # Validation comes at an epoch's end, which is else far beyond the steps of a trial.
        trainer.limit_train_batches = steps
        trainer.check_val_every_n_epoch = 1
    if trainer.progress_bar_callback:
        trainer.progress_bar_callback.disable()


def _try(trainer: pl.Trainer, before: dict[str, Any], name: str, size: int) -> None:
    _leave_validation(trainer)
    lightning_setattr(trainer.lightning_module, name, size)
    scaling._reset_dataloaders(trainer)
    scaling._reset_progress(trainer)
    scaling._try_loop_run(trainer, before)


def _leave_validation(trainer: pl.Trainer) -> None:
    """A fit that failed within its validation is still there."""
    if trainer.state.fn == "fit":
        trainer.training = True


def make_loaders_anew(trainer: pl.Trainer) -> None:
    """With the batch size that was set: before a fit by its own loop; in an evaluation, which has begun, at once."""
    loop = trainer._active_loop
    if trainer.state.fn == "fit":
        loop._combined_loader = loop.epoch_loop.val_loop._combined_loader = None
        return
    scaling._reset_dataloaders(trainer)
    loop.reset()


def _largest(loop: Any, asked: Asked) -> int:
    """The samples of the data set, or the maximum where that is smaller or nobody knows them."""
    most = asked.maximum
    try:
        samples: int = loop._combined_loader._dataset_length()
    except NotImplementedError:
        return most
    return max(1, min(most, samples))


def _narrowed(found: SearchResult, asked: Asked) -> SearchResult:
    """What the mode and the margin leave of an answer."""
    size = found.batch_size
    if asked.mode == "power" and size >= asked.start:
        size = asked.start << int(log2(size // asked.start))
    size = max(1, int(size * (1 - asked.margin)))
    if size == found.batch_size:
        return found
    return replace(found, batch_size=size, reason=f"batch {size}, by mode and margin: {found.reason}")
