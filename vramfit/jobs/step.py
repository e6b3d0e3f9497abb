"""The training step: the only one in vramfit. Prediction traces it, measurement times it, training runs it.

Whatever happens on the card in a step happens here: moving the batch over, preparing it, autocast, loss, scaler,
accumulation, clipping, the optimizer and the averaged copy of the weights. No step reads a value back to the host.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vramfit.choices import Amp
from vramfit.errors import UsageError
from vramfit.jobs.averaged_model import AveragedModel
from vramfit.jobs.batch import batch_size, loss_terms, map_tensors, pair_of, weighed_parts
from vramfit.jobs.closures import Closure
from vramfit.jobs.job import Batch, Job, Tree, build_model
from vramfit.jobs.levers.apply import (
    apply_to_allocator,
    apply_to_network,
    apply_to_placement,
    apply_to_step,
    settled,
)
from vramfit.jobs.listed_samples import find_samples, is_pair
from vramfit.jobs.network_call import call_network, find_loss, loss_in
from vramfit.jobs.optimizers import build_optimizer
from vramfit.jobs.own_step import Run
from vramfit.jobs.param_groups import freeze, scale_rates, train_mode
from vramfit.records import Phase

_DTYPES: dict[Amp, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_WARM = 1_000_000_000  # steps after which the warm-up of no average goes on


@dataclass(frozen=True)
class Precision:
    """How a step computes: the autocast dtype, None for float32, and the scaler that goes with it."""

    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler

    @classmethod
    def of(cls, job: Job, device: torch.device) -> "Precision":
        """What `job.amp` means on a device: a CPU has no fp16 kernels worth the name and runs float32."""
        amp = None if device.type == "cpu" and job.amp == "fp16" else job.amp
        scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        return cls(_DTYPES[amp] if amp else None, scaler)


class Step:
    """A job on one device: its network, optimizer, scaler and averaged weights, and the steps they take.

    `phase` is the part of a step that runs, or that an error came from.
    """

    def __init__(self, job: Job, device: torch.device | str, *, precision: Precision | None = None) -> None:
        self.job = job = settled(job)
        self.phase: Phase = "forward"
        self._stale_gradients = False  # whether those there are of the step before
        self.device = torch.device(device)
        apply_to_allocator(job.levers, self.device)
        self.precision = precision or Precision.of(job, self.device)
        self.model: nn.Module = build_model(job).train()
        apply_to_placement(self, job.levers)
        self.to_card(self.model)
        if job.channels_last:
            self.model.to(memory_format=torch.channels_last)
        apply_to_network(self.model, job.levers)
        freeze(self.model, job.frozen)
        self.optimizer = build_optimizer(job.optimizer, self.model, job.name)
        self.closure = Closure.of(self)
        scale_rates(self.optimizer, self.model, dict(job.rate_scales))
        self.average = AveragedModel(self.model, job.ema_decay) if job.ema_decay else None
        torch.backends.cudnn.benchmark = job.cudnn_benchmark
        apply_to_step(self, job.levers)

    def to_card(self, module: nn.Module) -> None:
        """Move a module and its parts to the device."""
        module.to(self.device)

    def train(self, batch: Batch, micro_batch: int) -> Tensor:
        """One optimizer step on a host batch in parts of `micro_batch` samples; the mean loss, on the device."""
        loss = self.backward(batch, micro_batch)
        self.update()
        return loss

    def backward(self, batch: Batch, micro_batch: int) -> Tensor:
        """Accumulate the gradient of the batch's mean loss; each part weighs by the terms that its own mean is over."""
        batch = find_samples(batch)
        if self.job.step is not None:
            return self._take_turns(batch, micro_batch)
        train_mode(self.model, self.job.frozen)
        loss = torch.zeros((), device=self.device)
        for part, share in weighed_parts(batch, micro_batch, partial(loss_terms, self.job)):
            loss += self._backward_part(part, share)
        if self.closure is not None:
            self.closure.remember(batch, micro_batch, loss)
        return loss

    def update(self) -> None:
        """Unscale, clip, step optimizer and scaler, drop gradients if not late, follow with the average."""
        self.phase = "optimizer"
        if self.job.step is None:
            self.step_optimizer(self.optimizer, self.model.parameters())
        self.precision.scaler.update()
        if self.job.late_zero_grad:
            self._stale_gradients = True
        else:
            self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)

    def step_optimizer(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Unscale and clip the gradients of the parameters that an optimizer learns, and step it."""
        self.clip(optimizer, parameters)
        self.precision.scaler.step(optimizer) if self.closure is None else self.closure.update()

    def clip(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Unscale and clip the gradients of the parameters that an optimizer learns, if the job has a largest norm."""
        if self.job.clip_norm is not None:
            self.precision.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, self.job.clip_norm)

    @property
    def can_validate(self) -> bool:
        """Whether there is something to judge: a step of one's own needs a loss for it."""
        return self.job.step is None or self.job.loss is not None

    @torch.no_grad()
    def validate(self, batch: Batch) -> tuple[Any, Tensor]:
        """Outputs and mean loss of a host batch, in evaluation mode, with the averaged weights if there are any.

        The loss is NaN where a network that returns its loss returns none in evaluation mode, as torchvision's
        detectors do.
        """
        self.phase = "validation"
        inputs, targets = self._prepare(find_samples(batch), training=False)
        with self._evaluating() as network, self._autocast():
            outputs = self._forward(network.eval(), inputs, targets)
        if self.job.loss is None and find_loss(outputs) is None:
            return outputs, torch.full((), float("nan"), device=self.device)
        return outputs, self._loss(outputs, targets)

    @property
    def evaluation_model(self) -> nn.Module:
        """The weights to judge and to keep: the averaged copy, or the network itself."""
        return self.average.model if self.average is not None else self.model

    def state_dict(self) -> dict[str, Any]:
        """Everything the step carries from one batch to the next."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average is not None else None,
            "average_steps": self.average.steps if self.average is not None else 0,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            # A run that kept no average begins one from the weights it has.
            self.average.model.load_state_dict(state["average"] or state["model"])
            # An earlier version did not count: its average goes on as it began, without a warm-up.
            self.average.steps = state.get("average_steps", _WARM if state["average"] else 0)
        self._load_optimizer(state["optimizer"])
        if state["scaler"]:  # empty from a run without one, as on a CPU: the scale is then found anew
            self.precision.scaler.load_state_dict(state["scaler"])

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Its moments and rates; what else it was told, such as its weight decay, is this job's."""
        mine = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, told in zip(self.optimizer.param_groups, mine, strict=True):
            group.update({name: value for name, value in told.items() if name not in ("params", "lr")})

    def _evaluating(self) -> AbstractContextManager[nn.Module]:
        return self.average.on(self.device) if self.average is not None else nullcontext(self.model)

    def _backward_part(self, part: Batch, share: float) -> Tensor:
        self.phase = "forward"
        inputs, targets = self._prepare(part, training=True)
        with self._autocast():
            outputs = self._forward(self.model, inputs, targets)
        loss = self._loss(outputs, targets) * share
        if not loss.requires_grad:
            raise UsageError(
                f"The loss of '{self.job.name}' depends on no weight that learns: compute it from the outputs as they "
                "are, without .detach(), .item(), .argmax() or torch.no_grad()."
            )
        if self._stale_gradients:
            self.optimizer.zero_grad(set_to_none=True)
            self._stale_gradients = False
        self.phase = "backward"
        self.precision.scaler.scale(loss).backward()
        return loss.detach()

    def _take_turns(self, batch: Batch, micro_batch: int) -> Tensor:
        """A step of the job's own, which updates what it likes."""
        assert self.job.step is not None
        if batch_size(batch) > micro_batch:
            raise UsageError(
                f"'{self.job.name}' has a step of its own, which updates weights within a batch, so a batch of "
                f"{batch_size(batch)} cannot be split into parts of {micro_batch}; ask for no larger effective batch."
            )
        train_mode(self.model, self.job.frozen)
        inputs, targets = self._prepare(batch, training=True)
        run = Run(self)
        with self._autocast():
            loss = self.job.step(run, (inputs, targets) if is_pair(batch) else inputs)
        if not run.updated:
            raise UsageError(f"step of '{self.job.name}' updated nothing; call run.backward(loss), then run.update().")
        return _scalar(loss, self.job.name).detach()

    def _forward(self, network: nn.Module, inputs: Tree, targets: Tree) -> Any:
        """Outputs of inputs, or of the whole batch where the network computes the loss."""
        whole = inputs is targets
        if self.job.loss is not None or whole or targets is None or not tree_leaves(targets):
            return call_network(network, inputs, of_whole_batch=whole and self.job.loss is not None)
        return call_network(network, (inputs, targets))

    def _loss(self, outputs: Any, targets: Tree) -> Tensor:
        loss = self.job.loss(outputs, targets) if self.job.loss is not None else loss_in(outputs, self.job.name)
        return _scalar(loss, self.job.name)

    @torch.no_grad()
    def _prepare(self, batch: Batch, *, training: bool) -> tuple[Tree, Tree]:
        """Inputs and targets on the device; the same tree twice where a batch is whole."""
        inputs, targets = pair_of(map_tensors(self._to_device, batch))
        if self.job.prepare is not None:
            inputs, targets = self.job.prepare(inputs, targets, training)
        laid_out = map_tensors(self._to_layout, inputs)
        return laid_out, laid_out if targets is inputs else targets

    def _to_device(self, value: Tensor) -> Tensor:
        return value.to(self.device, non_blocking=True)

    def _to_layout(self, value: Tensor) -> Tensor:
        if self.job.channels_last and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def _autocast(self) -> torch.autocast:
        dtype = self.precision.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def _scalar(loss: Any, job: str) -> Tensor:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    if isinstance(loss, Tensor):
        what, how = f"a tensor of {loss.dim()} dimensions", "loss.mean(), or reduction='mean'"
    else:
        what, how = type(loss).__name__, "of several losses, their sum"
    raise UsageError(f"The loss of '{job}' returned {what}; let it return the samples' mean, a scalar tensor ({how}).")
