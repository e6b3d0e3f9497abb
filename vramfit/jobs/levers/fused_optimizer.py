"""An optimizer that takes each step in one kernel, without a copy of the weights on the way."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vramfit.errors import UsageError
from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from vramfit.jobs.job import Job
    from vramfit.jobs.optimizers import OptimizerFactory
    from vramfit.records import Lever


@register
class FusedOptimizer(LeverKind):
    """The optimizer's `fused` form, for those of torch.optim that have one: no copy of the weights in each step."""

    name = "fused_optimizer"
    cost = "free"
    order = 20
    exact = True

    def is_free_for(self, job: "Job", model: "nn.Module") -> bool:
        """Where the optimizer has a fused form and does not use it."""
        import torch

        factories = job.optimizer.values() if isinstance(job.optimizer, Mapping) else [job.optimizer]
        try:
            built = [factory([torch.nn.Parameter(torch.zeros(1))]) for factory in factories]
        except Exception:  # one that wants other parameters than any: a user's code may raise anything
            return False
        return all(optimizer.defaults.get("fused", True) in (False, None) for optimizer in built)

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with its optimizer fused once that is built."""
        if isinstance(job.optimizer, Mapping):
            return replace(job, optimizer={name: _fused(factory) for name, factory in job.optimizer.items()})
        return replace(job, optimizer=_fused(job.optimizer))


@dataclass(frozen=True)
class Fused:
    """An optimizer factory whose optimizer takes each step in one kernel; pickles where the factory does.

    A fused optimizer also reads the scaler's verdict on the card, so the step waits for nothing.
    """

    build: "Callable[[Iterable[nn.Parameter]], Optimizer]"

    def __call__(self, parameters: "Iterable[nn.Parameter]") -> "Optimizer":
        """The optimizer of these parameters, fused.

        Raises:
            UsageError: it has no fused form.

        """
        optimizer = self.build(parameters)
        if "fused" not in optimizer.defaults:
            raise UsageError(f"{type(optimizer).__name__} has no fused form; remove the fused_optimizer lever.")
        return optimizer if optimizer.defaults["fused"] else _rebuilt(optimizer)


def _fused(factory: "OptimizerFactory") -> Fused:
    return factory if isinstance(factory, Fused) else Fused(factory)


def _rebuilt(optimizer: "Optimizer") -> "Optimizer":
    """The same optimizer made anew: its constructor is where torch prepares a fused step."""
    fused = {"foreach": False, "fused": True}
    make: Any = type(optimizer)
    known = inspect.signature(make).parameters
    defaults = {key: value for key, value in {**optimizer.defaults, **fused}.items() if key in known}
    return make([{**group, **fused} for group in optimizer.param_groups], **defaults)  # type: ignore[no-any-return]
