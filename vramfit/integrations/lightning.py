"""`FitCallback` for Lightning: finds the batch size before a run, and takes batches in parts that do not fit during it.

trainer = pl.Trainer(callbacks=[FitCallback()])
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BatchSizeFinder
from pytorch_lightning.loops.optimization.automatic import Closure, ClosureResult
from pytorch_lightning.utilities.parsing import lightning_setattr
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from vramfit.integrations.lightning_search import Asked, make_loaders_anew, search
from vramfit.integrations.recovery import (
    OnEvent,
    ShowsRecovery,
    TrainerRecovery,
    TrainerStep,
    can_be_split,
    kept_free,
    replaced,
    samples_of,
)
from vramfit.jobs.batch import batch_size, tensors_in, valid_labels, weighed_parts
from vramfit.jobs.job import Batch
from vramfit.jobs.ranks import Ranks
from vramfit.measure.find import SearchResult
from vramfit.measure.preserve import preserved
from vramfit.records import OomEvent
from vramfit.training.loop_recovery import without_reduction

logger = logging.getLogger("vramfit")


class FitCallback(ShowsRecovery, BatchSizeFinder):  # type: ignore[misc]  # the library has no types
    """Finds the largest batch size that fits, and survives running out of memory during the run.

    The search runs where the module or the data module has the attribute `batch_arg_name` and makes the loaders, in one
    process, and not where a checkpoint brings the batch it was trained with. It is bounded by the data set, takes
    training steps with optimizer and averaged weights, and validation, and finds no size that was not run; what
    mode="power" or a margin make of it is smaller, and may not have been run itself. Weights, optimizer and random
    states are put back after it.

    During the run a batch that does not fit is taken in smaller micro-batches: gradients that earlier batches
    accumulated, weights, optimizer state, buffers and random states are put back first, and parts weigh by their valid
    labels. With DistributedDataParallel all ranks hear of a failure before gradients are reduced, and split alike.

    Args:
        mode: "binsearch" for the largest size, "power" for the largest `init_val` times a power of two.
        steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val: as `BatchSizeFinder` has them; the
            margin, a share of the batch, is 0 by default.
        find: search for the batch size; False keeps the module's own.
        effective_batch: samples of an optimizer step, which `accumulate_grad_batches` keeps about so where the batch
            that was found is smaller. The batch is then no larger than it. By default the batch is free.
        reserve_bytes: what must stay free of a CUDA card.
        on_event: is told of each OOM during the run.

    `micro_batch` is what the run has come down to, None as long as batches are taken whole; `events` is every OOM.

    Known limitations:
        Manual optimization, optimizers that call their closure more than once (L-BFGS), and networks whose parameters
        are sharded are not recovered. A batch is split along the first dimension of its tensors; a list of samples is
        not. `training_step` logs once a part. Validation is part of the search, and not recovered during the run.

    """

    def __init__(  # noqa: PLR0917  # BatchSizeFinder's own, in its order
        self,
        mode: str = "binsearch",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.0,
        max_val: int = 8192,
        *,
        find: bool = True,
        effective_batch: int | None = None,
        reserve_bytes: int = 0,
        on_event: OnEvent = lambda _: None,
    ) -> None:
        super().__init__(mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val)
        self.optimal_batch_size: int | None = None
        self.events: list[OomEvent] = []
        self.result: SearchResult | None = None
        self._find, self._effective_batch = find, effective_batch
        self._reserve_bytes = reserve_bytes
        most = min(max_val, effective_batch or max_val)
        self._asked = Asked(
            self._mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, most, reserve_bytes
        )
        self._on_event = on_event
        self._recovery: TrainerRecovery | None = None
        self._undo = ExitStack()  # of what a run replaced

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Limit the card, and refuse what `BatchSizeFinder` refuses where there is a search."""
        self._undo.enter_context(kept_free(self._reserve_bytes, trainer.strategy.root_device))
        self._find = self._find and not trainer._accelerator_connector.is_distributed
        if self._find:
            super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """The batch that was found: a resumed run keeps it."""
        return {"batch_size": self.optimal_batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the batch of a checkpoint."""
        self.optimal_batch_size = state_dict["batch_size"]

    def scale_batch_size(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Search, or take the batch of the checkpoint that is resumed."""
        if not self._find or trainer.fast_dev_run:
            return
        size = self.optimal_batch_size
        with preserved():
            if size is None:
                self.result = search(trainer, self._asked)
                size = self.optimal_batch_size = self.result.batch_size
                words = self.result.reason.removesuffix(".")
                logger.warning("Lightning: %s (%d trials)", words, len(self.result.trials))
            lightning_setattr(pl_module, self._batch_arg_name, size)
            make_loaders_anew(trainer)
        if self._effective_batch is not None:
            trainer.accumulate_grad_batches = max(1, round(self._effective_batch / size))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stand between the loop and its step."""
        if not pl_module.automatic_optimization:
            logger.warning("Lightning: manual optimization steps by itself; an OOM in it is not recovered.")
            return
        loop = trainer.fit_loop.epoch_loop.automatic_optimization
        ranks = Ranks.here() if trainer.world_size > 1 else Ranks()
        recovery = TrainerRecovery(_Step(trainer, pl_module), ranks, self._note)
        self._recovery = recovery
        run = loop.run

        def recovered(optimizer: torch.optim.Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> Any:
            batch = kwargs.get("batch")
            if not can_be_split(batch):
                return run(optimizer, batch_idx, kwargs)
            step = recovery.trainer_step
            assert isinstance(step, _Step)
            step.batch_idx, step.kwargs = batch_idx, kwargs
            if batch_idx % trainer.accumulate_grad_batches == 0:
                # Lightning drops the gradients of the step before in the first backward pass of the next.
                step.drop_gradients()
            recovery.take_next(batch, (trainer.current_epoch + 1, trainer.global_step + 1))
            return step.output.asdict() if step.output is not None and step.output.loss is not None else {}

        self._undo.enter_context(replaced(loop, "run", recovered))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the loop and the card as they were."""
        self._undo.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the loop and the card as they were."""
        self._undo.close()


class _Step(TrainerStep):
    """Lightning's own closures on parts of a batch, and its own optimizer step after the last."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        super().__init__(module, trainer.optimizers[0], scaler)
        self.batch_idx = 0
        self.kwargs: OrderedDict[str, Any] = OrderedDict()
        self.output: ClosureResult | None = None
        self._trainer = trainer
        whole = trainer.strategy.model
        self._replicas = [one for one in whole.modules() if isinstance(one, DistributedDataParallel)]
        self._loop = trainer.fit_loop.epoch_loop.automatic_optimization

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """A closure for each part; the loss as Lightning scales it."""
        self.updates = not self._trainer.fit_loop._should_accumulate()
        total: Tensor = self._counted(lambda: self._parts(batch, micro_batch))
        return total

    def update(self) -> None:
        """Add what earlier batches left, and step where the window ends."""
        super().update()
        if self.updates:
            self.phase = "optimizer"
            loss = self.output.loss if self.output is not None else None
            self._counted(lambda: self._loop._optimizer_step(self.batch_idx, lambda: loss))

    def _parts(self, batch: Batch, micro_batch: int) -> Tensor:
        total = torch.zeros((), device=self.device)
        for index, (part, share) in enumerate(weighed_parts(batch, micro_batch, _terms, samples_of)):
            self.phase = "forward"
            # In containers of its own: what a step takes out of them must be there for a second try.
            closure = self._closure(samples_of(part, slice(None)), share, is_first=index == 0)
            with without_reduction(self._replicas):
                closure()
            self.output = closure.consume_result()
            if self.output.loss is not None:
                total = total + self.output.loss
        if self.output is not None and self.output.loss is not None:
            self.output = ClosureResult(total, self.output.extra)
        return total

    def _closure(self, part: Batch, share: float, *, is_first: bool) -> Closure:
        kwargs = OrderedDict(self.kwargs, batch=part)
        closure = self._loop._make_closure(kwargs, self._trainer.optimizers[0], self.batch_idx)
        forward = closure._step_fn

        def weighed() -> ClosureResult:
            output = forward()
            self.phase = "backward"
            if output.closure_loss is None or share == 1.0:
                return output
            return ClosureResult(output.closure_loss * share, output.extra)

        closure._step_fn = weighed
        if not is_first:
            closure._zero_grad_fn = None
        return closure

    def _counted(self, act: Callable[[], Any]) -> Any:
        """Leave Lightning's counters as they were where an act fails."""
        before = self._loop.optim_progress.state_dict()
        try:
            return act()
        except Exception:
            self._loop.optim_progress.load_state_dict(before)
            raise


def _terms(batch: Batch) -> float:
    """What the mean loss is over: the valid classes of a batch's last tensor, or else the samples."""
    return valid_labels(tensors_in(batch)[-1:], batch_size(batch))
